#include <fmt/format.h>
#include <gtest/gtest.h>

#include "experiments/core_buffers.h"
#include "mixers/registry.h"
#include "testing/cells.h"
#include "testing/gpu.h"

namespace vla_bench {
namespace {

using testing::is_empty;
using testing::number;
using testing::small_tests;
using testing::text;

// Few calls over few tokens under a tool, where each takes at least a tenth of a second.
CellResult run_on_gpu(const std::string& mixer, const std::string& implementations,
                      Index tokens = small_tests() ? 17 : 130) {
  const RunConfig config = parse_config(
      fmt::format(R"({{"experiment": "latency", "mixers": [{}], "seeds": [5],
                       "model": {{"n_heads": 2, "d_h": 64}}, "task": {{"seq_len": {}}},
                       "latency": {{"batch": 2, "min_repeats": {},
                                    "max_repeats": {}, "implementations": [{}]}}}})",
                  mixer, tokens, small_tests() ? 3 : 7, small_tests() ? 3 : 21, implementations),
      "test");
  const CellConfig cell = expand_cells(config, Device::cuda).front();
  return run_cell(
      cell, {.context = testing::gpu_context(), .checkpoint = {}, .progress = {}, .stop = nullptr});
}

TEST(LatencyOnGpu, TimesBothPassesOfEveryMixer) {
  VLA_NEEDS_GPU();
  for (const char* mixer : {R"("softmax")", R"("linear")", R"("deltanet")", R"("vla")",
                            R"({"mixer": "deltanet", "variant": "standard"})",
                            R"({"mixer": "vla", "penalty": "frozen"})"}) {
    const CellResult result = run_on_gpu(mixer, R"("production")");
    ASSERT_EQ(result.status, CellStatus::ok) << mixer << ": " << result.reason;
    ASSERT_EQ(result.table.rows.size(), 2U);
    for (std::size_t row = 0; row < 2; ++row) {
      // Two events with nothing between them take over half a microsecond.
      EXPECT_GT(number(result.table, row, "median_s"), 5e-7);
      EXPECT_LT(number(result.table, row, "median_s"), small_tests() ? 10.0 : 0.1);
      EXPECT_EQ(text(result.table, row, "device"), "cuda");
      EXPECT_EQ(text(result.table, row, "precision"), "float32");
      // No kernel beats the matrix products of the same run by much.
      EXPECT_LT(number(result.table, row, "flop_per_s"),
                1.5 * number(result.table, row, "sgemm_flop_per_s"));
      EXPECT_LT(number(result.table, row, "bytes_per_s"),
                1.5 * number(result.table, row, "copy_bytes_per_s"));
    }
  }
}

TEST(LatencyOnGpu, TimesBothPassesInChunks) {
  VLA_NEEDS_GPU();
  for (const char* mixer : {R"("gated_deltanet")", R"("kda")", R"("gla")", R"("based")"}) {
    const CellResult result = run_on_gpu(mixer, R"("chunked")");
    ASSERT_EQ(result.status, CellStatus::ok) << mixer << ": " << result.reason;
    ASSERT_EQ(result.table.rows.size(), 2U);
    for (std::size_t row = 0; row < 2; ++row) {
      EXPECT_EQ(text(result.table, row, "implementation"), "chunked");
      EXPECT_EQ(text(result.table, row, "status"), "ok") << mixer << ": " << result.reason;
      EXPECT_GT(number(result.table, row, "median_s"), 5e-7);
    }
  }
}

TEST(LatencyOnGpu, TimesVlaTokenByToken) {
  VLA_NEEDS_GPU();
  // Every variant agrees with the reference, or its row would have failed; the longest fills half
  // of a stream's queue, and under a tool the host is too slow for that.
  for (const char* mixer :
       {R"("vla")", R"({"mixer": "vla", "penalty": "frozen"})",
        R"({"mixer": "vla", "penalty": "key", "residual": "write", "period": 3})",
        R"({"mixer": "vla", "write": "raw", "normaliser": "none", "lambda_0": 1})"}) {
    const auto lengths = small_tests() ? std::vector<Index>{1, 17} : std::vector<Index>{1, 65, 512};
    for (const Index tokens : lengths) {
      const CellResult result = run_on_gpu(mixer, R"("sequential")", tokens);
      ASSERT_EQ(result.status, CellStatus::ok) << mixer << " " << tokens << ": " << result.reason;
      EXPECT_EQ(text(result.table, 0, "implementation"), "sequential");
      EXPECT_GT(number(result.table, 0, "median_s"), 1e-6);
    }
  }
}

TEST(LatencyOnGpu, TimesUnfusedSoftmax) {
  VLA_NEEDS_GPU();
  const CellResult result = run_on_gpu(R"("softmax")", R"("unfused")");
  ASSERT_EQ(result.table.rows.size(), 2U);
  EXPECT_EQ(text(result.table, 0, "implementation"), "unfused");
  EXPECT_EQ(text(result.table, 0, "status"), "ok") << result.reason;
  EXPECT_EQ(text(result.table, 1, "pass"), "backward");
  EXPECT_EQ(text(result.table, 1, "status"), "skipped");
  EXPECT_EQ(text(result.table, 1, "reason"), "unfused has only a forward pass");
}

TEST(LatencyOnGpu, TimesCudnnOrSaysWhyNot) {
  VLA_NEEDS_GPU();
  // Its ceiling is a product on tensor cores, and racecheck faults in cuBLASLt's.
  VLA_NEEDS_TRUE_TIMES();
  const CellResult result = run_on_gpu(R"("softmax")", R"("cudnn")");
  ASSERT_EQ(result.table.rows.size(), 2U);
  const Support cudnn =
      mixer_support({.options = SoftmaxOptions{}}, 64, Device::cuda, Implementation::cudnn);
  for (std::size_t row = 0; row < 2; ++row) {
    EXPECT_EQ(text(result.table, row, "implementation"), "cudnn");
    EXPECT_EQ(text(result.table, row, "precision"), "bf16");
    EXPECT_EQ(text(result.table, row, "status"), cudnn.ok ? "ok" : "skipped") << result.reason;
    if (!cudnn.ok) {
      EXPECT_EQ(text(result.table, row, "reason"), cudnn.reason);
    }
  }
}

TEST(CoreBuffersOnGpu, HoldTheSameAsOnTheCpu) {
  VLA_NEEDS_GPU();
  const MixerConfig mixer{.options = VlaOptions{}};
  const HeadDims dims{.batch = 2, .tokens = 33, .heads = 2, .d_h = 16};
  const CoreBuffers<float> cpu(mixer, dims, {Device::cpu, 1}, 9);
  const CoreBuffers<float> gpu(mixer, dims, testing::gpu_context(), 9);
  const CoreBuffers<float> rotated_cpu(cpu, 40);
  const CoreBuffers<float> rotated_gpu(gpu, 40);
  EXPECT_EQ(to_host(cpu.projections), to_host(gpu.projections));
  EXPECT_EQ(to_host(rotated_cpu.projections), to_host(rotated_gpu.projections));
  EXPECT_EQ(to_host(rotated_cpu.more[0].values), to_host(rotated_gpu.more[0].values));
  EXPECT_EQ(to_host(rotated_cpu.d_o), to_host(rotated_gpu.d_o));
  EXPECT_NE(to_host(gpu.d_o), to_host(rotated_gpu.d_o));
}

}  // namespace
}  // namespace vla_bench
