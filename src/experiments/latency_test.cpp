#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "bench/ceilings.h"
#include "core/error.h"
#include "experiments/core_buffers.h"
#include "experiments/latency_verification.h"
#include "mixers/registry.h"
#include "mixers/work.h"
#include "testing/cells.h"

namespace vla_bench {
namespace {

using testing::cell_of;
using testing::is_empty;
using testing::number;
using testing::on_threads;
using testing::text;

CellConfig latency_cell(const std::string& mixer, Index tokens,
                        const std::string& implementations = R"("production")") {
  return cell_of(fmt::format(
      R"({{"experiment": "latency", "mixers": [{}], "seeds": [5],
           "model": {{"n_heads": 2, "d_h": 8}}, "task": {{"seq_len": {}}},
           "latency": {{"batch": 1, "warmup": 1, "min_repeats": 2, "max_repeats": 3,
                        "implementations": [{}]}}}})",
      mixer, tokens, implementations));
}

TEST(Latency, TimesBothPassesOfEveryMixer) {
  for (const char* mixer : {R"("softmax")", R"("linear")", R"("deltanet")", R"("vla")",
                            R"({"mixer": "deltanet", "variant": "standard"})",
                            R"({"mixer": "vla", "penalty": "frozen"})"}) {
    const CellResult result = run_cell(latency_cell(mixer, 70), on_threads(2));
    ASSERT_EQ(result.status, CellStatus::ok) << mixer << ": " << result.reason;
    ASSERT_EQ(result.table.rows.size(), 2U);
    EXPECT_EQ(text(result.table, 0, "pass"), "forward");
    EXPECT_EQ(text(result.table, 1, "pass"), "backward");
    for (std::size_t row = 0; row < 2; ++row) {
      EXPECT_GT(number(result.table, row, "median_s"), 0.0);
      EXPECT_LE(number(result.table, row, "p10_s"), number(result.table, row, "median_s"));
      EXPECT_LE(number(result.table, row, "median_s"), number(result.table, row, "p90_s"));
      EXPECT_EQ(text(result.table, row, "device"), "cpu");
    }
  }
}

TEST(Latency, CountsWorkAndNamesWhatTheMachineReaches) {
  const CellConfig cell = latency_cell(R"("vla")", 70, R"("production", "reference")");
  const CellResult result = run_cell(cell, on_threads(2));
  ASSERT_EQ(result.table.rows.size(), 4U);
  const HeadDims dims{.batch = 1, .tokens = 70, .heads = 2, .d_h = 8};
  const auto count = [&](std::size_t row, const char* column) {
    return std::get<std::int64_t>(result.table.rows[row][result.table.column(column)]);
  };
  const Ceilings& ceilings = measured_ceilings({.device = Device::cpu, .threads = 2});
  for (std::size_t row = 0; row < 4; ++row) {
    const bool reference = row >= 2;
    const LatencyPass pass = row % 2 == 0 ? LatencyPass::forward : LatencyPass::backward;
    const Work work = core_work({.options = VlaOptions{}}, dims, pass, reference ? 8 : 4);
    EXPECT_EQ(count(row, "flop"), work.flop);
    EXPECT_EQ(count(row, "bytes"), work.bytes);
    const double seconds = number(result.table, row, "median_s");
    EXPECT_DOUBLE_EQ(number(result.table, row, "flop_per_s") * seconds,
                     static_cast<double>(work.flop));
    EXPECT_DOUBLE_EQ(number(result.table, row, "bytes_per_s") * seconds,
                     static_cast<double>(work.bytes));
    EXPECT_EQ(text(result.table, row, "precision"), reference ? "float64" : "float32");
    EXPECT_EQ(number(result.table, row, "copy_bytes_per_s"), ceilings.bytes_per_s);
    if (reference) {
      EXPECT_TRUE(is_empty(result.table, row, "sgemm_flop_per_s"));
    } else {
      EXPECT_EQ(number(result.table, row, "sgemm_flop_per_s"), ceilings.flops_per_s);
    }
  }
}

TEST(Latency, TimesValuesWiderThanKeys) {
  CellConfig cell = latency_cell(R"("gated_deltanet")", 70, R"("production", "reference")");
  cell.config.model.d_v = 16;
  const CellResult result = run_cell(cell, on_threads(2));
  ASSERT_EQ(result.status, CellStatus::ok) << result.reason;
  ASSERT_EQ(result.table.rows.size(), 4U);
  // Of two heads S (16, 8), in float and in double.
  const auto bytes = [&](std::size_t row) {
    return result.table.rows[row][result.table.column("state_bytes")];
  };
  EXPECT_EQ(bytes(0), Value(std::int64_t{2 * 16 * 8 * 4}));
  EXPECT_EQ(bytes(2), Value(std::int64_t{2 * 16 * 8 * 8}));
}

TEST(Latency, SaysHowWellAMedianIsKnown) {
  CellConfig cell = latency_cell(R"("linear")", 70);
  const CellResult few = run_cell(cell, on_threads(1));
  EXPECT_TRUE(is_empty(few.table, 0, "relative_error"));
  EXPECT_EQ(text(few.table, 0, "status"), "ok");
  EXPECT_NE(text(few.table, 0, "reason").find("relative_error 0.02 not reached: "),
            std::string::npos);
  EXPECT_NE(text(few.table, 0, "reason").find("repeats are too few to tell"), std::string::npos);
  EXPECT_EQ(few.reason, "") << "of the cell there is nothing to say";

  cell.config.latency.max_repeats = 6;
  cell.config.latency.relative_error = 1e-12;
  const CellResult noisy = run_cell(cell, on_threads(1));
  const double reached = number(noisy.table, 0, "relative_error");
  EXPECT_GT(reached, 0.0);
  EXPECT_EQ(text(noisy.table, 0, "reason"),
            fmt::format("relative_error 1e-12 not reached: {:.2g} after 6 repeats", reached));

  cell.config.latency.relative_error = 1e9;
  const CellResult known = run_cell(cell, on_threads(1));
  EXPECT_GE(number(known.table, 0, "relative_error"), 0.0);
  EXPECT_TRUE(is_empty(known.table, 0, "reason"));
}

TEST(Latency, SaysWhyAnImplementationIsNotTimed) {
  const std::string all = R"("production", "unfused", "cudnn")";
  const CellResult softmax = run_cell(latency_cell(R"("softmax")", 20, all), on_threads(1));
  EXPECT_EQ(softmax.status, CellStatus::ok) << "production was timed";
  ASSERT_EQ(softmax.table.rows.size(), 6U);
  const CellResult linear = run_cell(latency_cell(R"("linear")", 20, all), on_threads(1));
  for (std::size_t row = 2; row < 6; ++row) {
    const std::string implementation = row < 4 ? "unfused" : "cudnn";
    EXPECT_EQ(text(softmax.table, row, "implementation"), implementation);
    EXPECT_EQ(text(softmax.table, row, "status"), "skipped");
    EXPECT_EQ(text(softmax.table, row, "reason"), implementation + " runs only on a GPU");
    EXPECT_EQ(text(softmax.table, row, "precision"), row < 4 ? "float32" : "bf16");
    EXPECT_TRUE(is_empty(softmax.table, row, "flop_per_s"));
    EXPECT_EQ(text(linear.table, row, "reason"), implementation + " is softmax");
  }
}

TEST(Latency, TimesVlaTokenByToken) {
  const std::string both = R"("production", "sequential")";
  const CellResult vla = run_cell(latency_cell(R"("vla")", 20, both), on_threads(2));
  EXPECT_EQ(vla.status, CellStatus::ok) << vla.reason;  // it agrees with the reference, too
  ASSERT_EQ(vla.table.rows.size(), 4U);
  EXPECT_EQ(text(vla.table, 2, "implementation"), "sequential");
  EXPECT_EQ(text(vla.table, 2, "status"), "ok");
  EXPECT_GT(number(vla.table, 2, "median_s"), 0.0);
  EXPECT_EQ(text(vla.table, 3, "reason"), "sequential has only a forward pass");

  const CellResult longer = run_cell(latency_cell(R"("vla")", 513, both), on_threads(2));
  EXPECT_EQ(text(longer.table, 2, "reason"), "sequential is timed up to 512 tokens");
  CellConfig wide = latency_cell(R"("vla")", 20, both);
  wide.config.model.d_v = 2 * wide.config.model.d_h;
  const CellResult of_wide = run_cell(wide, on_threads(2));
  EXPECT_EQ(text(of_wide.table, 0, "status"), "ok") << of_wide.reason;
  EXPECT_EQ(text(of_wide.table, 2, "reason"), "sequential has no values wider than its keys");
  const CellResult linear = run_cell(latency_cell(R"("linear")", 20, both), on_threads(2));
  EXPECT_EQ(text(linear.table, 2, "reason"), "sequential is vla");
}

TEST(Latency, TimesTheReferenceOnShortSequencesAlone) {
  const std::string both = R"("production", "reference")";
  const CellResult brief = run_cell(latency_cell(R"("vla")", 8, both), on_threads(1));
  ASSERT_EQ(brief.table.rows.size(), 4U);
  EXPECT_EQ(text(brief.table, 2, "implementation"), "reference");
  EXPECT_EQ(text(brief.table, 2, "status"), "ok");

  const CellResult extended = run_cell(latency_cell(R"("linear")", 1025, both), on_threads(1));
  EXPECT_EQ(extended.status, CellStatus::ok);
  ASSERT_EQ(extended.table.rows.size(), 4U);
  EXPECT_EQ(text(extended.table, 2, "status"), "skipped");
  EXPECT_NE(text(extended.table, 2, "reason").find("1024"), std::string::npos);
  EXPECT_TRUE(is_empty(extended.table, 2, "median_s"));
}

/// A core whose outputs are off by one part in `1 / error`.
class WrongCore : public MixerCore<float> {
 public:
  WrongCore(std::unique_ptr<MixerCore<float>> right, float error)
      : right_(std::move(right)), error_(error) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    right_->forward(context, inputs, o, saved);
    o.at(inputs.dims.rows() - 1, inputs.dims.heads - 1)[0] += error_;
  }
  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override {
    right_->backward(context, inputs, gradients, saved);
  }
  std::unique_ptr<HeadMemory<float>> memory(Index head) const override {
    return right_->memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override { return right_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& dims) const override { return right_->saved_bytes(dims); }

 private:
  std::unique_ptr<MixerCore<float>> right_;
  float error_;
};

TEST(Latency, RefusesACoreThatIsWrong) {
  const CellConfig cell = latency_cell(R"("linear")", 20);
  const Context context{Device::cpu, 1};
  const auto wrong = [&](float error) {
    WrongCore core(make_mixer_core<float>(cell.config.mixers.front(), 8, Device::cpu,
                                          Implementation::production),
                   error);
    return verify_against_reference(cell.config, context, Implementation::production, core);
  };
  EXPECT_EQ(wrong(0.0F), "");
  EXPECT_NE(wrong(0.1F).find("[linear] o: relative error"), std::string::npos) << wrong(0.1F);
  EXPECT_NE(wrong(NAN).find("inf"), std::string::npos) << wrong(NAN);
}

// Raw writes with a frozen penalty multiply an error by 1 - 1 / lambda_0 a token: at 0.01 that is
// 1e127 after 64 tokens, at 1e-7 beyond double. No kernel can be right or wrong about such values.
TEST(Latency, WhatLeavesTheRangeOfNumbersHasDivergedNotFailed) {
  for (const char* lambda_0 : {"0.01", "1e-7"}) {
    const std::string mixer = fmt::format(
        R"({{"mixer": "vla", "penalty": "frozen", "write": "raw", "lambda_0": {}}})", lambda_0);
    const CellResult result =
        run_cell(latency_cell(mixer, 200, R"("production", "reference")"), on_threads(1));
    EXPECT_EQ(result.status, CellStatus::diverged) << result.reason;
    ASSERT_EQ(result.table.rows.size(), 4U);
    for (std::size_t row = 0; row < 4; ++row) {
      EXPECT_EQ(text(result.table, row, "status"), "diverged");
      EXPECT_NE(text(result.table, row, "reason").find("at token "), std::string::npos);
      EXPECT_TRUE(is_empty(result.table, row, "median_s"));
    }
  }
}

TEST(Latency, StopsBetweenRepeats) {
  CellConfig cell = latency_cell(R"("linear")", 20);
  cell.config.latency.min_repeats = cell.config.latency.max_repeats = 1'000'000'000;
  cell.config.latency.max_seconds = 1e9;
  std::atomic<bool> stop = false;
  CellEnvironment environment = on_threads(1);
  environment.stop = &stop;
  measured_ceilings(environment.context);  // once a process, and not what is to be stopped
  std::thread signal([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop = true;
  });
  EXPECT_EQ(run_cell(cell, environment).status, CellStatus::interrupted);
  signal.join();
}

/// A core that computes on copies of its own, as those in another storage type do.
class HalfCore : public CopyingCore<float> {
 public:
  explicit HalfCore(std::unique_ptr<MixerCore<float>> inner) : inner_(std::move(inner)) {}

  void prepare(const Context& context, const CoreInputs<float>& inputs,
               const CoreGradients<float>* gradients) override {
    const HeadDims& dims = inputs.dims;
    copies_ = std::make_unique<CoreBuffers<float>>(MixerConfig{.options = LinearOptions{}}, dims,
                                                   context, 99);
    const auto copy = [&](HeadView<const float> from, float* to, Index stride) {
      for (Index row = 0; row < dims.rows(); ++row) {
        for (Index head = 0; head < dims.heads; ++head) {
          std::copy_n(from.at(row, head), dims.d_h, to + row * stride + head * dims.d_h);
        }
      }
    };
    const Index width = dims.heads * dims.d_h;
    copy(inputs.q, copies_->projections.data(), 3 * width);
    copy(inputs.k, copies_->projections.data() + width, 3 * width);
    copy(inputs.v, copies_->projections.data() + 2 * width, 3 * width);
    if (gradients != nullptr) copy(gradients->d_o, copies_->d_o.data(), width);
  }
  void forward(const Context& context, const CoreInputs<float>&, HeadView<float>,
               Array<float>* saved) override {
    inner_->forward(context, copies_->inputs(), copies_->output(), saved);
  }
  void backward(const Context& context, const CoreInputs<float>&, const CoreGradients<float>&,
                const Array<float>& saved) override {
    inner_->backward(context, copies_->inputs(), copies_->gradients(), saved);
  }
  void deliver(const Context&, const CoreInputs<float>& inputs, HeadView<float> o,
               const CoreGradients<float>* gradients) override {
    const HeadDims& dims = inputs.dims;
    for (Index row = 0; row < dims.rows(); ++row) {
      for (Index head = 0; head < dims.heads; ++head) {
        std::copy_n(copies_->output().at(row, head), dims.d_h, o.at(row, head));
        if (gradients == nullptr) continue;
        const CoreGradients<float> own = copies_->gradients();
        std::copy_n(own.dq.at(row, head), dims.d_h, gradients->dq.at(row, head));
        std::copy_n(own.dk.at(row, head), dims.d_h, gradients->dk.at(row, head));
        std::copy_n(own.dv.at(row, head), dims.d_h, gradients->dv.at(row, head));
      }
    }
  }
  std::unique_ptr<HeadMemory<float>> memory(Index head) const override {
    return inner_->memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override { return inner_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& dims) const override { return inner_->saved_bytes(dims); }

 private:
  std::unique_ptr<MixerCore<float>> inner_;
  std::unique_ptr<CoreBuffers<float>> copies_;
};

TEST(Latency, VerifiesCoresThatComputeOnCopies) {
  const CellConfig cell = latency_cell(R"("linear")", 20);
  HalfCore core(make_mixer_core<float>(cell.config.mixers.front(), 8, Device::cpu,
                                       Implementation::production));
  EXPECT_EQ(
      verify_against_reference(cell.config, {Device::cpu, 1}, Implementation::production, core),
      "");
}

/// Fails when asked for gradients.
class ForwardAlone : public WrongCore {
 public:
  explicit ForwardAlone(std::unique_ptr<MixerCore<float>> right)
      : WrongCore(std::move(right), 0.0F) {}
  void backward(const Context&, const CoreInputs<float>&, const CoreGradients<float>&,
                const Array<float>&) override {
    throw RunError("no backward");
  }
};

TEST(Latency, VerifiesTheForwardOfACoreWithoutABackward) {
  const CellConfig cell = latency_cell(R"("softmax")", 20);
  ForwardAlone core(make_mixer_core<float>(cell.config.mixers.front(), 8, Device::cpu,
                                           Implementation::production));
  const Context context{Device::cpu, 1};
  EXPECT_EQ(verify_against_reference(cell.config, context, Implementation::unfused, core), "");
  EXPECT_THROW(verify_against_reference(cell.config, context, Implementation::production, core),
               RunError);
}

TEST(CoreBuffers, RotateByWholeTokens) {
  const MixerConfig mixer{.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}};
  const HeadDims dims{.batch = 2, .tokens = 3, .heads = 2, .d_h = 4};
  const CoreBuffers<float> first(mixer, dims, {Device::cpu, 1}, 9);
  for (const Index shift : {0, 1, 5, 6, 13}) {
    const CoreBuffers<float> other(first, shift);
    EXPECT_EQ(other.bytes(), first.bytes());
    EXPECT_EQ(other.bytes(), 2 * 4 * 6 * (3 * 8 + 2 + 8));
    for (Index row = 0; row < 6; ++row) {
      const Index from = (row + shift) % 6;
      for (Index head = 0; head < 2; ++head) {
        for (Index i = 0; i < 4; ++i) {
          EXPECT_EQ(other.inputs().v.at(row, head)[i], first.inputs().v.at(from, head)[i]);
          EXPECT_EQ(other.d_o[row * 8 + head * 4 + i], first.d_o[from * 8 + head * 4 + i]);
        }
        EXPECT_EQ(*other.inputs().more[0].at(row, head), *first.inputs().more[0].at(from, head));
      }
    }
  }
}

TEST(CoreBuffers, OneRoundIsLargerThanTwiceTheCache) {
  constexpr Index kMiB = Index{1} << 20;
  constexpr Index kPlenty = Index{1} << 40;
  constexpr Index kManyCalls = 10000;
  // 61 sets of 2 MiB are the first that exceed 120 MiB.
  EXPECT_EQ(buffer_sets(60 * kMiB, kPlenty, 2 * kMiB, 8 * kMiB, kManyCalls), 61);
  // One set is larger than the cache: another one, so that a call does not meet its own output.
  EXPECT_EQ(buffer_sets(60 * kMiB, kPlenty, 500 * kMiB, 900 * kMiB, kManyCalls), 2);
  // Small sets: a bound on their number.
  EXPECT_EQ(buffer_sets(60 * kMiB, kPlenty, 1000, 4000, kManyCalls), 512);
  // No set is touched twice by so few calls; by fewer than two there is one to spare.
  EXPECT_EQ(buffer_sets(60 * kMiB, kPlenty, 2 * kMiB, 8 * kMiB, 21), 21);
  EXPECT_EQ(buffer_sets(60 * kMiB, kPlenty, 2 * kMiB, 8 * kMiB, 1), 2);
  // A quarter of the memory, and one set where not even two fit.
  EXPECT_EQ(buffer_sets(60 * kMiB, 1000 * kMiB, 2 * kMiB, 8 * kMiB, kManyCalls), 31);
  EXPECT_EQ(buffer_sets(60 * kMiB, 1000 * kMiB, 300 * kMiB, 900 * kMiB, kManyCalls), 1);
}

TEST(CoreBuffers, AreTheSameInBothTypesAndOnAnyThreads) {
  const MixerConfig mixer{.options = VlaOptions{}};
  const HeadDims dims{.batch = 2, .tokens = 3, .heads = 2, .d_h = 4};
  const CoreBuffers<float> single(mixer, dims, {Device::cpu, 1}, 9);
  const CoreBuffers<double> twice(mixer, dims, {Device::cpu, 3}, 9);
  ASSERT_EQ(single.projections.size(), 2 * 3 * 3 * 8);
  ASSERT_EQ(single.more[0].values.size(), 2 * 3 * 8);
  for (Index i = 0; i < single.projections.size(); ++i) {
    EXPECT_EQ(static_cast<double>(single.projections[i]), twice.projections[i]);
  }
  // Views of q, k and v: side by side in a row, heads d apart.
  EXPECT_EQ(single.inputs().k.at(1, 1), single.projections.data() + 24 + 8 + 4);
  const MixerConfig linear{.options = LinearOptions{}};
  EXPECT_TRUE(CoreBuffers<float>(linear, dims, {Device::cpu, 1}, 9).inputs().more[0].empty());
}

}  // namespace
}  // namespace vla_bench
