// Golden mixer files (testing/golden, written from the authors' published model code) through a
// MixerLayer: y, dx, every gradient, and the norms of the stepped states.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "mixers/layer.h"
#include "testing/compare.h"
#include "testing/source_dir.h"

namespace vla_bench::testing {

inline std::string golden_path(const std::string& name) {
  return (golden_dir() / (name + ".safetensors")).string();
}

inline MixerConfig golden_mixer_config(const TensorFile& file) {
  MixerConfig mixer;
  for (const auto& [kind, name] : enum_names<MixerKind>) {
    if (file.text("mixer") == name) mixer.mixer = kind;
  }
  if (mixer.mixer == MixerKind::vla) {
    mixer.lambda_0 = file.number("lambda_0");
    mixer.stab_eps = file.number("stab_eps");
    mixer.per_eps = file.number("per_eps");
    mixer.period = file.integer("period");
  }
  return mixer;
}

/// Norms of S (and A) after each token, averaged over batch and heads, by stepping the layer's
/// core.
template <class T>
void expect_golden_norms(const TensorFile& file, const MixerLayer<T>& layer, double tolerance) {
  if (!file.contains("S_norm")) return;
  const CoreInputs<T> inputs = layer.core_inputs();
  const HeadDims& dims = inputs.dims;
  const auto tokens = static_cast<std::size_t>(dims.tokens);
  std::vector<double> s_norm(tokens), a_norm(tokens);
  std::vector<T> o(static_cast<std::size_t>(dims.d_h));
  const auto lanes = static_cast<double>(dims.lanes());
  const auto memory = layer.core().memory();
  for (Index b = 0; b < dims.batch; ++b) {
    for (Index head = 0; head < dims.heads; ++head) {
      memory->reset();
      for (Index t = 0; t < dims.tokens; ++t) {
        const Index row = b * dims.tokens + t;
        memory->step(inputs.q.at(row, head), inputs.k.at(row, head), inputs.v.at(row, head),
                     inputs.aux.empty() ? nullptr : inputs.aux.at(row, head), o.data());
        s_norm[static_cast<std::size_t>(t)] += memory->state_norm() / lanes;
        a_norm[static_cast<std::size_t>(t)] += memory->penalty_norm().value_or(0.0) / lanes;
      }
    }
  }
  const std::vector<double> expected = file.values<double>("S_norm");
  EXPECT_TRUE(near("S_norm", std::span<const double>(s_norm), std::span<const double>(expected),
                   tolerance));
  if (file.contains("A_norm")) {
    const std::vector<double> penalty = file.values<double>("A_norm");
    EXPECT_TRUE(near("A_norm", std::span<const double>(a_norm), std::span<const double>(penalty),
                     tolerance));
  }
}

/// Recomputes the file in T. Denominators as the golden README says: the largest expected value of
/// a tensor; for parameter gradients at least 1e-3 of the file's largest gradient.
template <class T>
void expect_golden(const std::string& name, Implementation implementation, double tolerance) {
  SCOPED_TRACE(name + (implementation == Implementation::reference ? " reference" : " production"));
  const TensorFile file = TensorFile::read(golden_path(name));
  const Index batch = file.integer("B");
  const Index tokens = file.integer("T");
  const Index D = file.integer("d_model");
  const Index n_heads = file.integer("n_heads");
  const Index M = batch * tokens;
  ParameterTable table;
  MixerLayer<T> layer(golden_mixer_config(file), n_heads, D / n_heads, Device::cpu, implementation,
                      "", table);
  std::vector<T> parameters(static_cast<std::size_t>(table.size()));
  std::vector<T> gradients(parameters.size(), T(0));
  for (const Parameter& parameter : table.all()) {
    const std::vector<T> values = file.values<T>(parameter.name, parameter.shape);
    std::copy(values.begin(), values.end(), parameters.begin() + parameter.offset);
  }
  const std::vector<T> x = file.values<T>("x");
  const std::vector<T> dy = file.values<T>("dy");
  std::vector<T> y(x.size()), dx(x.size());
  const Context context{.device = Device::cpu, .threads = 2};
  layer.forward(context, batch, tokens, {x.data(), M, D}, parameters.data(), {y.data(), M, D},
                true);
  layer.backward(context, {x.data(), M, D}, parameters.data(), {dy.data(), M, D}, {dx.data(), M, D},
                 gradients.data());

  const auto check = [&](const std::string& tensor, std::span<const T> actual, double floor) {
    const std::vector<double> expected = file.values<double>(tensor);
    EXPECT_TRUE(near(tensor, actual, std::span<const double>(expected), tolerance, floor));
  };
  check("y", y, 1e-300);
  check("dx", dx, 1e-300);
  double largest = 0.0;
  for (const Parameter& parameter : table.all()) {
    for (double value : file.values<double>("grad." + parameter.name)) {
      largest = std::max(largest, std::abs(value));
    }
  }
  for (const Parameter& parameter : table.all()) {
    check("grad." + parameter.name,
          std::span<const T>(gradients).subspan(static_cast<std::size_t>(parameter.offset),
                                                static_cast<std::size_t>(parameter.size())),
          1e-3 * largest);
  }
  expect_golden_norms(file, layer, tolerance);
}

/// Production in both precisions and the reference, at the golden README's tolerances.
inline void expect_golden_everywhere(const std::string& name) {
  expect_golden<double>(name, Implementation::reference, 1e-9);
  expect_golden<double>(name, Implementation::production, 1e-9);
  expect_golden<float>(name, Implementation::production, 1e-4);
}

}  // namespace vla_bench::testing
