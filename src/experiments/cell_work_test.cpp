#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "core/count.h"
#include "experiments/cost.h"
#include "testing/cells.h"

namespace vla_bench {
namespace {

Index flop_of(std::string_view json) { return cell_flop(testing::cell_of(json).config); }

TEST(CellWork, CountsATrainingByHand) {
  // One layer of linear attention, D = 4 (two heads of 2), F = 3, V = 8; n = 2: T = 7, 2 targets.
  const std::string_view json = R"({"experiment": "mqar", "mixers": ["linear"],
      "model": {"n_heads": 2, "d_h": 2, "n_layers": 1, "d_ff": 3, "vocab_size": 8},
      "task": {"n_pairs": 2}, "train": {"steps": 10, "batch": 5, "warmup": 1},
      "eval": {"batches": 3, "batch": 4}})";
  constexpr Index kWeights = 4 * 4 * 4 + 2 * 4 * 3;  // q, k, v, o; two maps of the MLP
  constexpr Index kHead = 8 * 4;
  constexpr Index kForwardOfRow = 2 * (7 * kWeights + 2 * kHead + 2 * 7 * 2 * 2 * 2);
  constexpr Index kBackwardOfRow = 2 * (2 * 7 * kWeights + 2 * 2 * kHead + 2 * 7 * 6 * 2 * 2);
  EXPECT_EQ(flop_of(json), 10 * 5 * (kForwardOfRow + kBackwardOfRow) + 3 * 4 * kForwardOfRow);
}

TEST(CellWork, CountsTheBlocksOfTheFieldByHand) {
  // As above with a gated convolution before it (a map, 3 taps), 2 taps on q, k and v, no MLP.
  const std::string_view json = R"({"experiment": "mqar", "mixers": ["linear"],
      "model": {"n_heads": 2, "d_h": 2, "d_ff": 0, "vocab_size": 8, "positions": false,
                "layers": ["gated_conv", "mixer"], "short_conv_qkv": 2, "bias": false},
      "task": {"n_pairs": 2}, "train": {"steps": 10, "batch": 5, "warmup": 1},
      "eval": {"batches": 3, "batch": 4}})";
  constexpr Index kWeights = 4 * 4 + 3 * 4 + 4 * 4 * 4 + 2 * 3 * 4;
  constexpr Index kHead = 8 * 4;
  constexpr Index kForwardOfRow = 2 * (7 * kWeights + 2 * kHead + 2 * 7 * 2 * 2 * 2);
  constexpr Index kBackwardOfRow = 2 * (2 * 7 * kWeights + 2 * 2 * kHead + 2 * 7 * 6 * 2 * 2);
  EXPECT_EQ(flop_of(json), 10 * 5 * (kForwardOfRow + kBackwardOfRow) + 3 * 4 * kForwardOfRow);
}

TEST(CellWork, AShortConvolutionIsWork) {
  constexpr const char* kPlain = R"({"experiment": "mqar", "mixers": ["vla"]})";
  constexpr const char* kConvolved =
      R"({"experiment": "mqar", "mixers": ["vla"], "model": {"short_conv": 4}})";
  EXPECT_GT(flop_of(kConvolved), flop_of(kPlain));
}

TEST(CellWork, CountsARecallByHand) {
  // 3 trials: 4 tokens of linear attention (2 d^2 multiply-adds each) and 4 decodings among 6.
  EXPECT_EQ(flop_of(R"({"experiment": "recall", "mixers": ["linear"], "model": {"d_h": 8},
                        "task": {"n_pairs": 4}, "recall": {"trials": 3, "codebook": 6}})"),
            3 * (2 * 4 * 2 * 64 + 2 * 4 * 6 * 8));
  // Values and codes of 16 channels.
  EXPECT_EQ(flop_of(R"({"experiment": "recall", "mixers": ["linear"],
                        "model": {"d_h": 8, "d_v": 16},
                        "task": {"n_pairs": 4}, "recall": {"trials": 3, "codebook": 6}})"),
            3 * (2 * 4 * 2 * 8 * 16 + 2 * 4 * 6 * 16));
}

TEST(CellWork, ProbesGrowWithTheirTokensAndAModelCostsMore) {
  constexpr const char* kGaussian = R"({"experiment": "state_norm", "mixers": ["vla"],
      "probe": {"source": "gaussian"}, "task": {"seq_len": 100}})";
  constexpr const char* kLonger = R"({"experiment": "state_norm", "mixers": ["vla"],
      "probe": {"source": "gaussian"}, "task": {"seq_len": 300}})";
  constexpr const char* kModel = R"({"experiment": "state_norm", "mixers": ["vla"],
      "probe": {"source": "model"}, "task": {"seq_len": 100}})";
  constexpr const char* kJacobian = R"({"experiment": "jacobian", "mixers": ["vla"],
      "probe": {"source": "model"}, "task": {"seq_len": 100}})";
  EXPECT_EQ(flop_of(kLonger), 3 * flop_of(kGaussian));
  EXPECT_GT(flop_of(kModel), flop_of(kGaussian));
  EXPECT_GT(flop_of(kJacobian), flop_of(kModel));
}

TEST(CellWork, CountsTheCallsOfALatency) {
  // Forward and backward of linear attention, 2 and 6 d^2 a token, warm-up and repeats.
  EXPECT_EQ(flop_of(R"({"experiment": "latency", "mixers": ["linear"],
                        "model": {"n_heads": 1, "d_h": 16}, "task": {"seq_len": 10},
                        "latency": {"batch": 2, "warmup": 1, "min_repeats": 4}})"),
            5 * 2 * 2 * 10 * (2 + 6) * 256);
}

TEST(CellWork, StopsAtTheLargestCount) {
  EXPECT_EQ(times({Index{1} << 40, Index{1} << 40}), kMostCounted);
  EXPECT_EQ(times({Index{1} << 40, Index{1} << 40, 0}), 0);
  EXPECT_EQ(plus({kMostCounted, 1}), kMostCounted);
  EXPECT_EQ(flop_of(R"({"experiment": "latency", "mixers": ["softmax"],
                        "task": {"seq_len": 1073741824}})"),
            kMostCounted);
}

TEST(CellWork, SegmentsCountTheirStepsAndSlices) {
  const auto flop = [](const std::string& task, int steps, int batches) {
    return flop_of(fmt::format(R"({{"experiment": "mqar", "mixers": ["vla"], "task": {{{}}},
                                   "train": {{"steps": {}, "warmup": 0}},
                                   "eval": {{"batches": {}}}}})",
                               task, steps, batches));
  };
  const auto small = [&](int steps, int batches) {
    return flop(R"("n_pairs": 4, "seq_len": 20)", steps, batches);
  };
  const auto large = [&](int steps, int batches) {
    return flop(R"("n_pairs": 8, "seq_len": 30)", steps, batches);
  };
  const Index evaluation = small(1, 2) - small(1, 1) + large(1, 2) - large(1, 1);
  // 7 steps are a cycle of 5 and 2 more, of which each size has its part, rounded down.
  const Index steps = small(5, 1) - small(1, 1) + large(3, 1) - large(1, 1);
  const std::string segments =
      R"("train_segments": [{"n_pairs": 4, "seq_len": 20, "steps": 3},
                            {"n_pairs": 8, "seq_len": 30, "steps": 2}],
         "eval_segments": [{"n_pairs": 4, "seq_len": 20}, {"n_pairs": 8, "seq_len": 30}])";
  EXPECT_EQ(flop(segments, 7, 3), steps + 3 * evaluation);
}

}  // namespace
}  // namespace vla_bench
