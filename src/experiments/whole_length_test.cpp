#include "experiments/whole_length.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "experiments/latency_verification.h"
#include "experiments/reference_range.h"
#include "mixers/registry.h"
#include "testing/cells.h"

namespace vla_bench {
namespace {

using testing::is_empty;
using testing::on_threads;
using testing::text;

constexpr Context kOneThread{Device::cpu, 1};
constexpr double kAllowed = 1e-3;

RunConfig config_of(const std::string& mixer, Index tokens, const std::string& d_h = "8") {
  return parse_config(fmt::format(R"({{"experiment": "latency", "mixers": [{}], "seeds": [5],
                                       "model": {{"n_heads": 2, "d_h": {}}},
                                       "task": {{"seq_len": {}}}, "latency": {{"batch": 2}}}})",
                                  mixer, d_h, tokens),
                      "test");
}

HeadDims dims_of(const RunConfig& config) {
  return {.batch = config.latency.batch,
          .tokens = sequence_length(config),
          .heads = config.model.n_heads,
          .d_h = config.model.d_h};
}

/// A right core whose results are changed afterwards.
class ChangedCore : public MixerCore<float> {
 public:
  using Change = std::function<void(HeadView<float> o, const CoreGradients<float>* gradients)>;
  ChangedCore(const RunConfig& config, Change change)
      : right_(make_mixer_core<float>(config.mixers.front(), config.model.d_h, Device::cpu,
                                      Implementation::production)),
        change_(std::move(change)) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    right_->forward(context, inputs, o, saved);
    change_(o, nullptr);
  }
  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override {
    right_->backward(context, inputs, gradients, saved);
    change_({}, &gradients);
  }
  std::unique_ptr<HeadMemory<float>> memory(Index head) const override {
    return right_->memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override { return right_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& dims) const override { return right_->saved_bytes(dims); }

 private:
  std::unique_ptr<MixerCore<float>> right_;
  Change change_;
};

PassVerdict check(const RunConfig& config, LatencyPass pass, ChangedCore::Change change) {
  CoreBuffers<float> buffers(config.mixers.front(), dims_of(config), kOneThread, 5);
  ChangedCore core(config, std::move(change));
  const WholeLengthCheck<float> whole(config, kOneThread, kAllowed);
  const PassVerdict verdict = whole.finite(core, pass, buffers);
  return verdict.status == CellStatus::ok ? whole.values(buffers) : verdict;
}

void unchanged(HeadView<float>, const CoreGradients<float>*) {}

constexpr const char* kMixers[] = {
    R"("softmax")",  R"("linear")",
    R"("deltanet")", R"({"mixer": "deltanet", "variant": "standard"})",
    R"("vla")",      R"({"mixer": "vla", "penalty": "frozen"})"};

TEST(WholeLength, ProductionCoresAgreeFarBeyondTheVerifiedTokens) {
  for (const char* mixer : kMixers) {
    for (const LatencyPass pass : {LatencyPass::forward, LatencyPass::backward}) {
      const PassVerdict verdict = check(config_of(mixer, 3001), pass, unchanged);
      EXPECT_EQ(verdict.status, CellStatus::ok) << mixer << ": " << verdict.reason;
    }
  }
}

// The kernel is to blame: float32 holds what it should have computed.
TEST(WholeLength, AnOutputThatIsNotFiniteHasFailedAtItsToken) {
  for (const char* mixer : {R"("softmax")", R"("vla")"}) {
    const RunConfig config = config_of(mixer, 300);
    const Index row = 300 + 170;  // token 171 of the second batch element
    const auto verdict = [&](float wrong) {
      return check(config, LatencyPass::forward, [=](HeadView<float> o, const auto*) {
        o.at(row, 0)[3] = o.at(row + 20, 1)[0] = wrong;
      });
    };
    for (const float wrong : {NAN, INFINITY}) {
      EXPECT_EQ(verdict(wrong).status, CellStatus::failed);
      EXPECT_NE(verdict(wrong).reason.find("o is not finite at token 171,"), std::string::npos)
          << verdict(wrong).reason;
    }
  }
}

TEST(WholeLength, TheEarliestTokenOfAllLanesIsNamed) {
  const PassVerdict verdict = check(
      config_of(R"("linear")", 300), LatencyPass::forward, [](HeadView<float> o, const auto*) {
        o.at(200, 1)[0] = o.at(300 + 150, 0)[0] = o.at(300 + 250, 1)[0] = NAN;
      });
  EXPECT_NE(verdict.reason.find("at token 151,"), std::string::npos) << verdict.reason;
}

TEST(WholeLength, AGradientThatIsNotFiniteHasFailed) {
  const RunConfig config = config_of(R"("vla")", 300);
  const auto verdict = [&](const auto& gradient) {
    return check(config, LatencyPass::backward, [=](auto, const CoreGradients<float>* gradients) {
      if (gradients != nullptr) gradient(*gradients).at(300 + 89, 1)[7] = NAN;
    });
  };
  const auto dv = [](const CoreGradients<float>& all) { return all.dv; };
  const auto dk = [](const CoreGradients<float>& all) { return all.dk; };
  const auto dmore = [](const CoreGradients<float>& all) { return all.dmore[0]; };
  EXPECT_NE(verdict(dv).reason.find("dq, dk, dv is not finite at token 90,"), std::string::npos);
  EXPECT_NE(verdict(dmore).reason.find("dmore[0] is not finite at token 90,"), std::string::npos);
  EXPECT_EQ(verdict(dk).status, CellStatus::failed);
}

TEST(WholeLength, AWrongValueOfTheLastLaneHasFailedAtItsToken) {
  for (const char* mixer : kMixers) {
    const RunConfig config = config_of(mixer, 3001);
    for (const Index token : {96, 2048, 3001}) {
      const PassVerdict verdict =
          check(config, LatencyPass::forward, [&](HeadView<float> o, const auto*) {
            float* const row = o.at(3001 + token - 1, 1);
            for (Index i = 0; i < 8; ++i) row[i] *= 1.01F;
          });
      EXPECT_EQ(verdict.status, CellStatus::failed) << mixer << " " << token;
      EXPECT_NE(verdict.reason.find(fmt::format("at token {} against", token)), std::string::npos)
          << verdict.reason;
    }
  }
}

/// The first token at which the production core's output is not finite; 0 when it always is.
Index first_overflow(const RunConfig& config) {
  CoreBuffers<float> buffers(config.mixers.front(), dims_of(config), kOneThread, 5);
  const auto core = make_mixer_core<float>(config.mixers.front(), config.model.d_h, Device::cpu,
                                           Implementation::production);
  core->forward(kOneThread, buffers.inputs(), buffers.output(), nullptr);
  for (Index token = 1; token <= buffers.dims.tokens; ++token) {
    for (Index batch = 0; batch < buffers.dims.batch; ++batch) {
      for (Index head = 0; head < buffers.dims.heads; ++head) {
        const float* row = buffers.output().at(batch * buffers.dims.tokens + token - 1, head);
        for (Index i = 0; i < buffers.dims.d_h; ++i) {
          if (!std::isfinite(row[i])) return token;
        }
      }
    }
  }
  return 0;
}

// Raw writes expand the state: float32 overflows at some token behind the 64 that are verified, or
// among them.
TEST(WholeLength, WhatOverflowsFloat32HasDivergedAtItsToken) {
  int behind = 0;
  for (const char* d_h : {"22", "23", "24", "26", "64"}) {
    RunConfig config = config_of(R"({"mixer": "vla", "write": "raw"})", 600, d_h);
    config.latency.batch = config.model.n_heads = 1;
    const Index token = first_overflow(config);
    ASSERT_GT(token, 0) << d_h;
    behind += token > 64 ? 1 : 0;
    const CellResult result = run_cell(expand_cells(config, Device::cpu).front(), on_threads(1));
    EXPECT_EQ(result.status, CellStatus::diverged) << result.reason;
    ASSERT_EQ(result.table.rows.size(), 2U);
    for (std::size_t row = 0; row < 2; ++row) {
      EXPECT_EQ(text(result.table, row, "status"), "diverged");
      EXPECT_TRUE(is_empty(result.table, row, "median_s"));
      // The memory reads a token before it writes the next, the kernel not always.
      const std::string reason = text(result.table, row, "reason");
      const std::string before = "at token ";
      ASSERT_NE(reason.find(before), std::string::npos) << reason;
      EXPECT_NEAR(std::stoi(reason.substr(reason.find(before) + before.size())),
                  static_cast<int>(token), 1)
          << reason;
    }
  }
  EXPECT_GT(behind, 0) << "no overflow behind the verified tokens";
}

// States up to 1e21 that float32 holds are timed, and what amplifies rounding.
TEST(WholeLength, WhatFloat32HoldsIsTimed) {
  for (const char* d_h : {"8", "16"}) {
    const PassVerdict verdict = check(config_of(R"({"mixer": "vla", "write": "raw"})", 3000, d_h),
                                      LatencyPass::forward, unchanged);
    EXPECT_EQ(verdict.status, CellStatus::ok) << d_h << ": " << verdict.reason;
  }
}

// A in float32 loses its positive eigenvalues to cancellation; in float64 nothing happens.
TEST(WholeLength, WhatBreaksOnlyInFloat32HasDiverged) {
  const RunConfig config =
      config_of(R"({"mixer": "vla", "u_scale": 100, "lambda_0": 1e-6})", 300, "32");
  const CellResult result = run_cell(expand_cells(config, Device::cpu).front(), on_threads(1));
  EXPECT_EQ(result.status, CellStatus::diverged) << result.reason;
  EXPECT_NE(result.reason.find("at token "), std::string::npos) << result.reason;
}

TEST(WholeLength, TheReferenceThatLeavesFloat32HasDiverged) {
  const RunConfig config = config_of(R"({"mixer": "vla", "write": "raw"})", 300, "26");
  CoreBuffers<double> buffers(config.mixers.front(), dims_of(config), kOneThread, 5);
  const auto core =
      make_mixer_core<double>(config.mixers.front(), 26, Device::cpu, Implementation::reference);
  const PassVerdict verdict = WholeLengthCheck<double>(config, kOneThread, kAllowed)
                                  .finite(*core, LatencyPass::forward, buffers);
  EXPECT_EQ(verdict.status, CellStatus::diverged);
  EXPECT_NE(verdict.reason.find("o leaves the range of float32 at token "), std::string::npos);
}

TEST(WholeLength, ChecksEndWhenStopped) {
  const RunConfig config = config_of(R"("vla")", 300);
  CoreBuffers<float> buffers(config.mixers.front(), dims_of(config), kOneThread, 5);
  const std::atomic<bool> stop = true;
  const WholeLengthCheck<float> whole(config, kOneThread, kAllowed, &stop);
  EXPECT_EQ(whole.values(buffers).status, CellStatus::ok) << "the outputs are zeros";
}

TEST(WholeLength, StepsABoundedNumberOfTokens) {
  const MixerConfig vla{.options = VlaOptions{}}, softmax{.options = SoftmaxOptions{}};
  constexpr Index kMillion = Index{1} << 20;
  const auto compared = [](const MixerConfig& mixer, Index d_h, Index tokens, Index d_v = 0) {
    return compared_tokens(mixer,
                           {.batch = 1, .tokens = tokens, .heads = 1, .d_h = d_h, .d_v = d_v});
  };
  EXPECT_EQ(compared(vla, 64, 1000), 1000);
  EXPECT_EQ(compared(vla, 64, kMillion), Index{1} << 17);
  EXPECT_EQ(compared(vla, 8, kMillion), Index{1} << 17);
  EXPECT_EQ(compared(vla, 256, kMillion), Index{1} << 13);
  EXPECT_EQ(compared({.options = LinearOptions{}}, 256, kMillion, 512), Index{1} << 12);
  EXPECT_EQ(compared(softmax, 64, kMillion), kMillion);
  EXPECT_EQ(compared(softmax, 1024, kMillion), Index{1} << 17);
  EXPECT_EQ(compared_rows(1), std::vector<Index>{1});
  EXPECT_EQ(compared_rows(7), (std::vector<Index>{1, 2, 3, 4, 6, 7}));
  EXPECT_EQ(compared_rows(8), (std::vector<Index>{1, 2, 3, 4, 6, 8}));
}

}  // namespace
}  // namespace vla_bench
