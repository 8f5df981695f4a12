#include "experiments/cost.h"

#include <gtest/gtest.h>

#include "testing/cells.h"

namespace vla_bench {
namespace {

RunConfig config_of(std::string_view json) { return testing::cell_of(json).config; }

constexpr const char* kTraining = R"({"experiment": "mqar", "mixers": ["vla"]})";

TEST(Cost, ATrainingIsItsOperationsAndOnAGpuItsLaunches) {
  const RunConfig config = config_of(kTraining);
  const auto flop = static_cast<double>(cell_flop(config));
  EXPECT_NEAR(flop / 3000, 10e9, 1e9);  // a step
  EXPECT_DOUBLE_EQ(estimated_seconds(config, Device::cuda, 16), 3000 * 0.28e-3 + flop / 30e12);
  EXPECT_DOUBLE_EQ(estimated_seconds(config, Device::cpu, 2), flop / 100e9);
}

TEST(Cost, AProbeHasAThreadAHeadAtMost) {
  const RunConfig config =
      config_of(R"({"experiment": "state_norm", "mixers": ["vla"], "model": {"n_heads": 2},
                    "probe": {"source": "gaussian"}, "task": {"seq_len": 1000}})");
  const double two = estimated_seconds(config, Device::cpu, 2);
  EXPECT_DOUBLE_EQ(estimated_seconds(config, Device::cpu, 1), 2 * two);
  EXPECT_DOUBLE_EQ(estimated_seconds(config, Device::cuda, 8), two);
}

TEST(Cost, ALatencyIsItsTimingRule) {
  const RunConfig config =
      config_of(R"({"experiment": "latency", "mixers": ["vla"], "task": {"seq_len": 8},
                    "latency": {"implementations": ["production", "reference"],
                                "max_seconds": 1.5}})");
  EXPECT_DOUBLE_EQ(estimated_seconds(config, Device::cpu, 1), 2 * 2 * 1.5);
}

TEST(Cost, SumsCellsAndReadsAsASentence) {
  const std::vector<RunConfig> cells = {config_of(kTraining), config_of(kTraining)};
  const Cost cost = estimate(cells, Device::cuda, 1);
  EXPECT_EQ(cost.cells, 2);
  EXPECT_EQ(cost.steps, 6000);
  EXPECT_DOUBLE_EQ(cost.seconds, 2 * estimated_seconds(cells[0], Device::cuda, 1));
  EXPECT_EQ(describe(cost, Device::cuda),
            "2 cells, 6,000 training steps, about 4 s of one GPU (estimated from counted "
            "operations)");
  EXPECT_EQ(describe({.cells = 1, .steps = 0, .seconds = 130.0}, Device::cpu),
            "1 cell, about 2 min of one CPU (estimated from counted operations)");
  EXPECT_EQ(describe({.cells = 1234, .steps = 0, .seconds = 9000.0}, Device::cpu),
            "1,234 cells, about 2.5 h of one CPU (estimated from counted operations)");
}

}  // namespace
}  // namespace vla_bench
