// The whole model on a GPU against the CPU in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "core/rng.h"
#include "model/tiny_lm.h"
#include "testing/gpu_operands.h"

namespace vla_bench {
namespace {

using namespace vla_bench::testing;

/// The published block, and the one of the MQAR benchmark.
std::vector<ModelConfig> models() {
  ModelConfig published;
  published.n_heads = 2;
  published.d_h = 16;
  published.d_ff = 24;
  published.vocab_size = 33;
  published.max_seq_len = 64;
  published.short_conv = 4;
  published.init_std = 0.3;  // far from the flat start, so that every gradient counts
  ModelConfig of_field = published;
  of_field.layers = {LayerKind::gated_conv, LayerKind::mixer};
  of_field.d_ff = 0;
  of_field.positions = false;
  of_field.short_conv = 0;
  of_field.short_conv_qkv = 4;
  of_field.bias = false;
  ModelConfig with_biases = of_field;
  with_biases.bias = true;
  with_biases.short_conv_qkv = 5;
  return {published, of_field, with_biases};
}

/// Random tokens; every third position carries a target.
Batch random_batch(const ModelConfig& model, Index rows, Index tokens) {
  Batch batch;
  batch.batch = rows;
  batch.tokens = tokens;
  batch.inputs.resize(Device::cpu, rows * tokens);
  batch.targets.resize(Device::cpu, rows * tokens);
  Rng rng(3, RngStream::benchmark, 1, 0);
  const auto vocabulary = static_cast<std::uint32_t>(model.vocab_size);
  for (Index i = 0; i < rows * tokens; ++i) {
    batch.inputs[i] = static_cast<std::int32_t>(rng.below(vocabulary));
    const auto target = static_cast<std::int32_t>(rng.below(vocabulary));
    batch.targets[i] = i % 3 == 0 ? target : kIgnoreTarget;
  }
  batch.index_targets();
  return batch;
}

struct Step {
  double loss = 0.0;
  std::vector<double> gradients;
  ParameterTable table;
};

template <class T>
Step run_step(const ModelConfig& config, const MixerConfig& mixer, const Context& context,
              const Batch& batch) {
  TinyLm<T> model(config, mixer, context);
  model.initialise(5);
  Step step;
  step.loss = model.forward_backward(batch).loss;
  step.gradients = to_double(to_host(model.gradients()));
  step.table = model.parameters();
  return step;
}

void expect_gpu_step(const ModelConfig& config, const MixerConfig& mixer, const Batch& batch) {
  const Step expected = run_step<double>(config, mixer, {}, batch);
  const Step actual = run_step<float>(config, mixer, gpu_context(), batch);
  EXPECT_NEAR(actual.loss / expected.loss, 1.0, 1e-5);
  double largest = 0.0;
  for (double value : expected.gradients) largest = std::max(largest, std::abs(value));
  for (const Parameter& parameter : expected.table.all()) {
    const auto part = [&](const Step& step) {
      return std::span<const double>(step.gradients)
          .subspan(static_cast<std::size_t>(parameter.offset),
                   static_cast<std::size_t>(parameter.size()));
    };
    // Some hundred float operations a value, as for the golden files; some gradients vanish
    // identically, so errors are relative to a thousandth of the largest gradient at least.
    EXPECT_TRUE(near(parameter.name, part(actual), part(expected), 1e-4, 1e-3 * largest));
  }
  EXPECT_EQ(actual.gradients, run_step<float>(config, mixer, gpu_context(), batch).gradients);
}

TEST(TinyLmCuda, AStepEqualsTheCpu) {
  VLA_NEEDS_GPU();
  for (const ModelConfig& model : models()) {
    SCOPED_TRACE(::testing::Message() << "d_ff " << model.d_ff << " bias " << model.bias);
    for (MixerConfig mixer : every_mixer()) {
      SCOPED_TRACE(std::string(mixer.name()));
      if (model.d_ff == 0) mixer.output_norm = true;
      if (model.d_ff == 0) mixer.output_norm_kind = OutputNorm::rms_head;
      expect_gpu_step(model, mixer, random_batch(model, 3, 37));
    }
  }
}

TEST(TinyLmCuda, AStepWithWideValuesEqualsTheCpu) {
  VLA_NEEDS_GPU();
  ModelConfig model = models()[1];
  model.d_v = 2 * model.d_h;
  for (const MixerOptions& mixer :
       {MixerOptions(GatedDeltaNetOptions{}), MixerOptions(LinearOptions{})}) {
    expect_gpu_step(
        model, {.options = mixer, .output_norm = true, .output_norm_kind = OutputNorm::rms_head},
        random_batch(model, 3, 37));
  }
}

TEST(TinyLmCuda, TheFieldsDeltaNetEqualsTheCpuAtItsSize) {
  VLA_NEEDS_GPU();
  ModelConfig model = models()[1];
  model.d_h = 32;
  model.vocab_size = 513;
  const MixerConfig mixer = {.options = DeltaNetOptions{.variant = DeltaNetVariant::standard},
                             .output_norm_kind = OutputNorm::rms_head};
  expect_gpu_step(model, mixer, random_batch(model, small_tests() ? 2 : 24, 130));
}

}  // namespace
}  // namespace vla_bench
