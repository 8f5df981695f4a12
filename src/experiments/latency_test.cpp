#include "experiments/latency.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "experiments/core_buffers.h"
#include "experiments/test_cells.h"
#include "mixers/registry.h"

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
  std::unique_ptr<HeadMemory<float>> memory() const override { return right_->memory(); }
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
    return verify_against_reference(cell.config, context, core);
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
      EXPECT_NE(text(result.table, row, "reason").find("64 tokens"), std::string::npos);
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
  std::thread signal([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop = true;
  });
  EXPECT_EQ(run_cell(cell, environment).status, CellStatus::interrupted);
  signal.join();
}

TEST(CoreBuffers, AreTheSameInBothTypesAndOnAnyThreads) {
  const MixerConfig mixer{.mixer = MixerKind::vla};
  const HeadDims dims{.batch = 2, .tokens = 3, .heads = 2, .d_h = 4};
  const CoreBuffers<float> single(mixer, dims, {Device::cpu, 1}, 9);
  const CoreBuffers<double> twice(mixer, dims, {Device::cpu, 3}, 9);
  ASSERT_EQ(single.projections.size(), 2 * 3 * 3 * 8);
  ASSERT_EQ(single.aux.size(), 2 * 3 * 8);
  for (Index i = 0; i < single.projections.size(); ++i) {
    EXPECT_EQ(static_cast<double>(single.projections[i]), twice.projections[i]);
  }
  // Views of q, k and v: side by side in a row, heads d apart.
  EXPECT_EQ(single.inputs().k.at(1, 1), single.projections.data() + 24 + 8 + 4);
  const MixerConfig linear{.mixer = MixerKind::linear};
  EXPECT_TRUE(CoreBuffers<float>(linear, dims, {Device::cpu, 1}, 9).inputs().aux.empty());
}

}  // namespace
}  // namespace vla_bench
