#include "model/tiny_lm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/rng.h"
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

// The golden files have no short convolution. Along the gradient, the slope of the loss is the
// gradient's squared length; a central difference of step h has an error of h^2 times third
// derivatives of order one plus rounding over h: below 1e-7 at h = 1e-5.
TEST_P(TinyLmTest, GradientIsTheSlopeOfTheLoss) {
  for (Index taps : {0, 3}) {
    SCOPED_TRACE(taps);
    const ModelConfig config = small_model(taps);
    TinyLm<double> model(config, GetParam(), {});
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
}

TEST_P(TinyLmTest, LaterTokensChangeNoEarlierLogits) {
  const ModelConfig config = small_model(3);
  TinyLm<float> model(config, GetParam(), {});
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

TEST_P(TinyLmTest, SameBitsOnAnyThreads) {
  const ModelConfig config = small_model(2);
  const auto run = [&](int threads) {
    TinyLm<float> model(config, GetParam(), {.threads = threads});
    model.initialise(5);
    model.forward_backward(random_batch(config, 9, 13, 1));
    return copy(model.gradients());
  };
  const auto once = run(1);
  EXPECT_EQ(once, run(2));
  EXPECT_EQ(once, run(3));
}

TEST_P(TinyLmTest, ShapesMayChangeBetweenCalls) {
  const ModelConfig config = small_model(2);
  TinyLm<float> model(config, GetParam(), {});
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
  ASSERT_EQ(ops::logit_chunk_rows(config.vocab_size), 2);
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
