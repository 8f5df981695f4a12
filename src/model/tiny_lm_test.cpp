#include "model/tiny_lm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "model/block.h"
#include "testing/operands.h"

namespace vla_bench {
namespace {

ModelConfig small_model(Index short_conv = 0) {
  ModelConfig model;
  model.n_heads = 2;
  model.d_h = 5;
  model.n_layers = 2;
  model.d_ff = 12;
  model.vocab_size = 11;
  model.max_seq_len = 16;
  model.short_conv = short_conv;
  model.init_std = 0.3;  // far from the flat start, so that every gradient counts
  return model;
}

/// The model of the MQAR benchmark: a gated convolution, then the mixer with convolutions of its
/// own and an RMSNorm over heads, no MLP, no positions, no biases.
ModelConfig field_model() {
  ModelConfig model = small_model();
  model.layers = {LayerKind::gated_conv, LayerKind::mixer};
  model.d_ff = 0;
  model.positions = false;
  model.short_conv_qkv = 3;
  model.bias = false;
  return model;
}
MixerConfig with_head_norm(MixerConfig mixer) {
  mixer.output_norm = true;
  mixer.output_norm_kind = OutputNorm::rms_head;
  return mixer;
}

/// Random tokens; every third position carries a target.
Batch random_batch(const ModelConfig& model, Index rows, Index tokens, std::uint32_t index) {
  Batch batch;
  batch.batch = rows;
  batch.tokens = tokens;
  batch.inputs.resize(Device::cpu, rows * tokens);
  batch.targets.resize(Device::cpu, rows * tokens);
  Rng rng(3, RngStream::benchmark, index, 0);
  const auto vocabulary = static_cast<std::uint32_t>(model.vocab_size);
  for (Index i = 0; i < rows * tokens; ++i) {
    batch.inputs[i] = static_cast<std::int32_t>(rng.below(vocabulary));
    const auto target = static_cast<std::int32_t>(rng.below(vocabulary));
    batch.targets[i] = i % 3 == 0 ? target : kIgnoreTarget;
  }
  batch.index_targets();
  return batch;
}

template <class T>
std::vector<T> copy(const Array<T>& values) {
  return {values.begin(), values.end()};
}

class TinyLmTest : public ::testing::TestWithParam<MixerConfig> {};

INSTANTIATE_TEST_SUITE_P(Mixers, TinyLmTest, ::testing::ValuesIn(every_mixer()),
                         [](const auto& mixer) { return std::string(mixer.param.name()); });

// Along the gradient, the slope of the loss is the gradient's squared length; a central difference
// of step h has an error of h^2 times third derivatives of order one plus rounding over h: below
// 1e-7 at h = 1e-5.
void expect_gradient_is_slope(const ModelConfig& config, const MixerConfig& mixer) {
  TinyLm<double> model(config, mixer, {});
  model.initialise(5);
  const Batch batch = random_batch(config, 3, 7, 1);
  model.forward_backward(batch);
  const std::vector<double> gradient = copy(model.gradients());
  for (const Parameter& parameter : model.parameters().all()) {
    double squares = 0.0;
    const auto begin = static_cast<std::size_t>(parameter.offset);
    const auto end = begin + static_cast<std::size_t>(parameter.size());
    for (std::size_t i = begin; i < end; ++i) squares += gradient[i] * gradient[i];
    if (std::sqrt(squares) < 1e-6) continue;  // identically zero, such as softmax's key bias
    const double step = 1e-5 / std::sqrt(squares);
    const auto move = [&](double by) {
      for (std::size_t i = begin; i < end; ++i) {
        model.values()[static_cast<Index>(i)] += by * gradient[i];
      }
    };
    move(step);
    const double above = model.evaluate(batch).loss;
    move(-2.0 * step);
    const double below = model.evaluate(batch).loss;
    move(step);
    const double slope = (above - below) / (2.0 * step);
    EXPECT_NEAR(slope / squares, 1.0, 1e-6) << parameter.name;
  }
}

// The golden files have no short convolution.
TEST_P(TinyLmTest, GradientIsTheSlopeOfTheLoss) {
  for (Index taps : {0, 3}) {
    SCOPED_TRACE(taps);
    expect_gradient_is_slope(small_model(taps), GetParam());
  }
  SCOPED_TRACE("of the field");
  expect_gradient_is_slope(field_model(), with_head_norm(GetParam()));
}

void expect_causal(const ModelConfig& config, const MixerConfig& mixer) {
  TinyLm<float> model(config, mixer, {});
  model.initialise(5);
  Batch batch = random_batch(config, 1, 9, 1);
  const auto logits = [&] {
    std::vector<float> out(static_cast<std::size_t>(9 * config.vocab_size));
    model.logits(batch, {out.data(), 9, config.vocab_size});
    return out;
  };
  const auto before = logits();
  batch.inputs[6] = (batch.inputs[6] + 1) % static_cast<std::int32_t>(config.vocab_size);
  const auto after = logits();
  const auto changed = static_cast<std::ptrdiff_t>(6 * config.vocab_size);
  EXPECT_TRUE(std::equal(before.begin(), before.begin() + changed, after.begin()));
  EXPECT_FALSE(std::equal(before.begin() + changed, before.end(), after.begin() + changed));
}

TEST_P(TinyLmTest, LaterTokensChangeNoEarlierLogits) {
  expect_causal(small_model(3), GetParam());
  expect_causal(field_model(), with_head_norm(GetParam()));
}

void expect_same_bits_on_any_threads(const ModelConfig& config, const MixerConfig& mixer) {
  const auto run = [&](int threads) {
    TinyLm<float> model(config, mixer, {.threads = threads});
    model.initialise(5);
    model.forward_backward(random_batch(config, 9, 13, 1));
    return copy(model.gradients());
  };
  const auto once = run(1);
  EXPECT_EQ(once, run(2));
  EXPECT_EQ(once, run(3));
}

TEST_P(TinyLmTest, SameBitsOnAnyThreads) {
  expect_same_bits_on_any_threads(small_model(2), GetParam());
  expect_same_bits_on_any_threads(field_model(), with_head_norm(GetParam()));
}

void expect_shapes_may_change(const ModelConfig& config, const MixerConfig& mixer) {
  TinyLm<float> model(config, mixer, {});
  model.initialise(5);
  const Batch batch = random_batch(config, 3, 7, 1);
  model.forward_backward(batch);
  const auto gradients = copy(model.gradients());
  model.evaluate(random_batch(config, 1, 12, 2));
  model.forward_backward(random_batch(config, 5, 2, 3));
  model.forward_backward(batch);
  EXPECT_EQ(gradients, copy(model.gradients()));
  EXPECT_GT(model.activation_bytes(3, 7, 2), 0);
  EXPECT_GT(model.activation_bytes(3, 8, 2), model.activation_bytes(3, 7, 2));
  // A target keeps its row before and after the final norm, a mean and a deviation.
  EXPECT_EQ(model.activation_bytes(3, 7, 3) - model.activation_bytes(3, 7, 2), 3 * 22 * 4);
}

TEST_P(TinyLmTest, ShapesMayChangeBetweenCalls) {
  expect_shapes_may_change(small_model(2), GetParam());
  expect_shapes_may_change(field_model(), with_head_norm(GetParam()));
}

/// Parameters, input and upstream gradient of one gated convolution block without an MLP.
struct GatedConvProblem {
  static constexpr Index kBatch = 2, kTokens = 5, kD = 6, kRows = kBatch * kTokens;

  ParameterTable table;
  Block<double> block;
  std::vector<double> parameters, gradients, h, d_output, d_h;

  GatedConvProblem()
      : block(config(), {.options = LinearOptions{}}, Device::cpu, Implementation::production, 0,
              table),
        parameters(testing::random_values<double>(table.size(), 1)),
        gradients(parameters.size()),
        h(testing::random_values<double>(kRows * kD, 2)),
        d_output(testing::random_values<double>(kRows * kD, 3)) {}

  static ModelConfig config() {
    ModelConfig model;
    model.n_heads = 2;
    model.d_h = kD / 2;
    model.layers = {LayerKind::gated_conv, LayerKind::mixer};
    model.d_ff = 0;
    model.short_conv = 4;  // only before a mixer
    return model;
  }
  const double* parameter(const std::string& name) const {
    return parameters.data() + table.at("blocks.0." + name).offset;
  }
  std::vector<double> forward() {
    const Matrix<const double> out =
        block.forward({}, kBatch, kTokens, {h.data(), kRows, kD}, parameters.data(), true);
    return {out.data, out.data + kRows * kD};
  }
  /// LayerNorm of the row at x.
  std::vector<double> norm(const double* x, const std::string& name) const {
    double mean = 0.0, variance = 0.0;
    for (Index c = 0; c < kD; ++c) mean += x[c] / kD;
    for (Index c = 0; c < kD; ++c) variance += (x[c] - mean) * (x[c] - mean) / kD;
    std::vector<double> y;
    for (Index c = 0; c < kD; ++c) {
      y.push_back((x[c] - mean) / std::sqrt(variance + 1e-5) * parameter(name + ".weight")[c] +
                  parameter(name + ".bias")[c]);
    }
    return y;
  }
  /// The formulas of block.h, row by row.
  std::vector<double> plain() const {
    std::vector<double> out;
    for (Index row = 0; row < kRows; ++row) {
      const std::vector<double> u = norm(h.data() + row * kD, "ln1");
      std::vector<double> middle(h.begin() + row * kD, h.begin() + (row + 1) * kD);
      for (Index c = 0; c < kD; ++c) {
        double gate = parameter("gated_conv.projection.bias")[c];
        for (Index j = 0; j < kD; ++j) {
          gate += parameter("gated_conv.projection.weight")[c * kD + j] * u[j];
        }
        double convolved = parameter("gated_conv.conv.bias")[c];
        for (Index back = 0; back < 3 && back <= row % kTokens; ++back) {
          convolved += parameter("gated_conv.conv.weight")[c * 3 + 2 - back] *
                       norm(h.data() + (row - back) * kD, "ln1")[c];
        }
        middle[c] += u[c] + convolved * gate;
      }
      const std::vector<double> normed = norm(middle.data(), "ln2");
      for (Index c = 0; c < kD; ++c) out.push_back(middle[c] + normed[c]);
    }
    return out;
  }
};

TEST(Block, AGatedConvolutionWithoutAnMlpEqualsPlainLoopsAndDifferences) {
  GatedConvProblem problem;
  // Sums of a few terms of order one.
  EXPECT_TRUE(testing::near("output", problem.forward(), problem.plain(), 1e-13));
  const auto loss = [&] {
    const std::vector<double> out = problem.plain();
    return std::inner_product(out.begin(), out.end(), problem.d_output.begin(), 0.0);
  };
  const std::vector<double> d_h = testing::central_differences(problem.h, loss);
  const std::vector<double> gradients = testing::central_differences(problem.parameters, loss);
  constexpr Index M = GatedConvProblem::kRows, D = GatedConvProblem::kD;
  problem.forward();
  const Matrix<const double> got =
      problem.block.backward({}, {problem.h.data(), M, D}, problem.parameters.data(),
                             {problem.d_output.data(), M, D}, problem.gradients.data());
  const std::vector<double> got_d_h(got.data, got.data + M * D);
  EXPECT_TRUE(testing::near("d_h", got_d_h, d_h, testing::kDifferenceTolerance));
  EXPECT_TRUE(
      testing::near("gradients", problem.gradients, gradients, testing::kDifferenceTolerance));
}

TEST(TinyLm, TheFieldsModelHasTheseParametersAndStartsSo) {
  ModelConfig config;
  config.layers = {LayerKind::gated_conv, LayerKind::mixer};
  config.d_ff = 0;
  config.positions = false;
  config.short_conv_qkv = 4;
  config.bias = false;
  config.scaled_residual_init = true;
  const MixerConfig deltanet = {.options = DeltaNetOptions{.variant = DeltaNetVariant::standard},
                                .output_norm_kind = OutputNorm::rms_head};
  TinyLm<float> model(config, deltanet, {});
  model.initialise(42);
  std::vector<std::string> names;
  for (const Parameter& parameter : model.parameters().all()) names.push_back(parameter.name);
  EXPECT_EQ(names, (std::vector<std::string>{"tok.weight",
                                             "blocks.0.ln1.weight",
                                             "blocks.0.ln1.bias",
                                             "blocks.0.gated_conv.projection.weight",
                                             "blocks.0.gated_conv.projection.bias",
                                             "blocks.0.gated_conv.conv.weight",
                                             "blocks.0.gated_conv.conv.bias",
                                             "blocks.0.ln2.weight",
                                             "blocks.0.ln2.bias",
                                             "blocks.1.ln1.weight",
                                             "blocks.1.ln1.bias",
                                             "blocks.1.attn.Wq.weight",
                                             "blocks.1.attn.Wk.weight",
                                             "blocks.1.attn.Wv.weight",
                                             "blocks.1.attn.q_conv1d.weight",
                                             "blocks.1.attn.k_conv1d.weight",
                                             "blocks.1.attn.v_conv1d.weight",
                                             "blocks.1.attn.Wb.weight",
                                             "blocks.1.attn.norm_o.weight",
                                             "blocks.1.attn.Wo.weight",
                                             "blocks.1.ln2.weight",
                                             "blocks.1.ln2.bias",
                                             "ln_f.weight",
                                             "ln_f.bias"}));
  const auto values = [&](const std::string& name) {
    const Parameter& parameter = model.parameters().at(name);
    const float* first = model.values().data() + parameter.offset;
    return std::vector<double>(first, first + parameter.size());
  };
  // The root mean square of n normal draws is known to 1 / sqrt(2 n); five times that.
  const auto expect_deviation = [&](const std::string& name, double deviation) {
    const std::vector<double> drawn = values(name);
    double squares = 0.0;
    for (double value : drawn) squares += value * value;
    const auto n = static_cast<double>(drawn.size());
    EXPECT_NEAR(std::sqrt(squares / n) / deviation, 1.0, 5.0 / std::sqrt(2.0 * n)) << name;
  };
  expect_deviation("blocks.1.attn.Wv.weight", 0.02);
  expect_deviation("blocks.0.gated_conv.projection.weight", 0.02);
  expect_deviation("blocks.1.attn.Wo.weight", 0.02 / 2.0);  // sqrt(2 n_layers)
  // 128 uniform draws or more reach 0.9 of the bound but for a chance of 0.9^128 = 1e-6.
  const auto expect_uniform = [&](const std::string& name, double bound) {
    double largest = 0.0;
    for (double value : values(name)) largest = std::max(largest, std::abs(value));
    EXPECT_LE(largest, bound * (1.0 + 1e-6)) << name;
    EXPECT_GE(largest, 0.9 * bound) << name;
  };
  expect_uniform("blocks.0.gated_conv.conv.weight", 1.0 / std::sqrt(3.0));
  expect_uniform("blocks.0.gated_conv.conv.bias", 1.0 / std::sqrt(3.0));
  expect_uniform("blocks.1.attn.k_conv1d.weight", 0.5);
  EXPECT_EQ(values("blocks.1.attn.norm_o.weight"), std::vector<double>(32, 1.0));
}

TEST(TinyLm, WithoutPositionsAnyLengthIsValid) {
  const ModelConfig config = field_model();
  TinyLm<float> model(config, {.options = LinearOptions{}}, {});
  model.initialise(5);
  EXPECT_EQ(model.evaluate(random_batch(config, 2, 17, 1)).count, 12);  // max_seq_len is 16
  EXPECT_THROW(model.core_inputs(random_batch(config, 2, 6, 1), 0), RunError);
}

TEST(TinyLm, StartsAsTheProtocolSays) {
  ModelConfig config;  // the published size
  config.short_conv = 4;
  TinyLm<float> model(config, {.options = VlaOptions{}}, {});
  model.initialise(42);
  const auto values = [&](const char* name) {
    const Parameter& parameter = model.parameters().at(name);
    const float* first = model.values().data() + parameter.offset;
    return std::vector<float>(first, first + parameter.size());
  };
  double squares = 0.0;
  const auto tokens = values("tok.weight");
  for (float value : tokens) squares += static_cast<double>(value) * static_cast<double>(value);
  // 16,384 draws: the deviation is known to 1 / sqrt(2 n) = 0.6%; five times that.
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(tokens.size())), 0.02, 0.03 * 0.02);
  EXPECT_EQ(values("blocks.1.attn.Wq.bias"), std::vector<float>(128, 0.0f));
  EXPECT_EQ(values("blocks.0.ln1.weight"), std::vector<float>(128, 1.0f));
  EXPECT_EQ(values("ln_f.bias"), std::vector<float>(128, 0.0f));
  for (float value : values("blocks.0.conv.weight")) EXPECT_LE(std::abs(value), 0.5f);
  EXPECT_EQ(model.parameters().at("blocks.0.conv.weight").shape, (std::vector<Index>{128, 1, 4}));

  const auto first = copy(model.values());
  model.initialise(42);
  EXPECT_EQ(first, copy(model.values()));
  model.initialise(43);
  EXPECT_NE(first, copy(model.values()));
}

// 2^22 logits at a time are two rows of this vocabulary: the batch's three targets take two chunks,
// its single targets one each. The mean loss and its gradient are the means of those.
TEST(TinyLm, ChunksOfTheHeadAddUp) {
  ModelConfig config = small_model();
  config.n_heads = 1;
  config.d_h = 2;
  config.n_layers = 1;
  config.vocab_size = 1'500'000;
  ASSERT_EQ(ops::logit_chunk_rows(Device::cpu, config.vocab_size), 2);
  TinyLm<double> model(config, {.options = LinearOptions{}}, {.threads = 2});
  model.initialise(5);
  Batch batch = random_batch(config, 1, 9, 1);
  const Array<std::int32_t> targets = std::move(batch.targets);
  const auto run_with = [&](const std::vector<Index>& chosen) {
    batch.targets.resize(Device::cpu, 0);
    batch.targets.resize(Device::cpu, 9);
    std::fill(batch.targets.begin(), batch.targets.end(), kIgnoreTarget);
    for (Index t : chosen) batch.targets[t] = targets[t];
    batch.index_targets();
    return model.forward_backward(batch);
  };
  double loss = 0.0;
  std::vector<double> gradient(static_cast<std::size_t>(model.gradients().size()));
  for (Index t : {0, 3, 6}) {
    loss += run_with({t}).loss / 3.0;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      gradient[i] += model.gradients()[static_cast<Index>(i)] / 3.0;
    }
  }
  const LossResult result = run_with({0, 3, 6});
  EXPECT_EQ(result.count, 3);
  EXPECT_NEAR(result.loss, loss, 1e-14 * loss);
  // Sums of a few terms a chunk; 1e-12 is far below an error of any chunk's scale or place.
  EXPECT_TRUE(testing::near("gradient", copy(model.gradients()), gradient, 1e-12));
  EXPECT_NEAR(model.evaluate(batch).loss, loss, 1e-14 * loss);
}

TEST(TinyLm, AccuracyCountsExactMatches) {
  const ModelConfig config = small_model();
  TinyLm<double> model(config, {.options = LinearOptions{}}, {});
  model.initialise(5);
  Batch batch = random_batch(config, 2, 6, 1);
  std::vector<double> logits(static_cast<std::size_t>(12 * config.vocab_size));
  model.logits(batch, {logits.data(), 12, config.vocab_size});
  Index count = 0;
  for (Index i = 0; i < 12; ++i) {  // the model's own answers, but for the first target
    if (batch.targets[i] == kIgnoreTarget) continue;
    const auto* row = logits.data() + i * config.vocab_size;
    const auto answer =
        static_cast<std::int32_t>(std::max_element(row, row + config.vocab_size) - row);
    batch.targets[i] = count++ == 0 ? (answer + 1) % 11 : answer;
  }
  batch.index_targets();
  const LossResult result = model.evaluate(batch);
  EXPECT_EQ(result.count, count);
  EXPECT_DOUBLE_EQ(result.accuracy, static_cast<double>(count - 1) / static_cast<double>(count));
}

TEST(TinyLm, RefusesBatchesItCannotRead) {
  const ModelConfig config = small_model();
  TinyLm<float> model(config, {.options = LinearOptions{}}, {});
  Batch batch = random_batch(config, 2, 6, 1);
  batch.inputs[3] = 11;
  EXPECT_THROW(model.evaluate(batch), BadInput);
  batch.inputs[3] = -1;
  EXPECT_THROW(model.evaluate(batch), BadInput);
  batch.inputs[3] = 0;
  batch.targets[3] = 11;
  batch.index_targets();
  EXPECT_THROW(model.forward_backward(batch), BadInput);
  batch.targets[3] = 0;
  batch.index_targets();
  batch.target_rows[0] = 12;
  EXPECT_THROW(model.forward_backward(batch), BadInput);
  for (std::int32_t& target : batch.targets) target = kIgnoreTarget;
  batch.index_targets();
  EXPECT_THROW(model.evaluate(batch), RunError);
  const Batch too_long = random_batch(config, 1, 17, 1);
  EXPECT_THROW(model.evaluate(too_long), BadInput);
}

}  // namespace
}  // namespace vla_bench
