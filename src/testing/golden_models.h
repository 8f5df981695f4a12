// Golden files of whole models and training traces as configs, batches and parameters.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "model/tiny_lm.h"
#include "testing/golden_mixers.h"

namespace vla_bench::testing {

inline ModelConfig golden_model_config(const TensorFile& file) {
  ModelConfig model;
  model.n_heads = file.integer("n_heads");
  model.d_h = file.integer("d_model") / model.n_heads;
  model.n_layers = file.integer("n_layers");
  model.d_ff = file.integer("d_ff");
  model.vocab_size = file.integer("vocab_size");
  model.max_seq_len = file.integer("max_seq_len");
  return model;
}

inline Batch golden_batch(const TensorFile& file, const std::string& inputs,
                          const std::string& targets) {
  Batch batch;
  batch.batch = file.integer("B");
  batch.tokens = file.integer("T");
  const auto read = [&](const std::string& name, Array<std::int32_t>& out) {
    const std::vector<Index> values = file.values<Index>(name);
    out.resize(Device::cpu, static_cast<Index>(values.size()));
    std::transform(values.begin(), values.end(), out.begin(),
                   [](Index value) { return static_cast<std::int32_t>(value); });
  };
  read(inputs, batch.inputs);
  read(targets, batch.targets);
  batch.index_targets();
  return batch;
}

template <class T>
void load_golden_parameters(const TensorFile& file, TinyLm<T>& model) {
  for (const Parameter& parameter : model.parameters().all()) {
    const std::vector<T> values = file.values<T>(parameter.name, parameter.shape);
    std::copy(values.begin(), values.end(), model.values().data() + parameter.offset);
  }
}

/// Compares every parameter's slice of `flat` with "<prefix><name>", denominators at least `floor`.
template <class T>
void expect_golden_slices(const TensorFile& file, const ParameterTable& table,
                          const std::string& prefix, const Array<T>& flat, double tolerance,
                          double floor) {
  for (const Parameter& parameter : table.all()) {
    const std::vector<double> expected = file.values<double>(prefix + parameter.name);
    const std::span<const T> actual(flat.data() + parameter.offset,
                                    static_cast<std::size_t>(parameter.size()));
    EXPECT_TRUE(
        near(prefix + parameter.name, actual, std::span<const double>(expected), tolerance, floor));
  }
}

}  // namespace vla_bench::testing
