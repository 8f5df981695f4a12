#include "mixers/gla/gla.h"

#include <gtest/gtest.h>

#include <cmath>

#include "testing/mixer_cases.h"
#include "testing/plain_mixers.h"

namespace vla_bench::testing {
namespace {

const MixerConfig kGla{.options = GlaOptions{}};

TEST(Gla, MeetsTheContract) { expect_contract(kGla); }

// Equal logits x on all channels, and in mamba2 A_log = -ln 16 and the logit -x, since
// sigmoid(x)^(1/16) = exp(-softplus(-x) / 16).
TEST(Gla, WithEqualChannelsIsMamba2AtThatDecay) {
  for (const HeadDims& dims : {HeadDims{2, 45, 3, 16}, HeadDims{1, 33, 2, 5}}) {
    CoreTensors scalar = random_tensors(kMamba2, dims, 81);
    CoreTensors tensors = scalar;
    tensors.widths = {dims.d_h};
    tensors.more[0].clear();
    for (const double logit : scalar.more[0]) {
      tensors.more[0].insert(tensors.more[0].end(), static_cast<std::size_t>(dims.d_h), -logit);
    }
    tensors.parameters.clear();
    for (double& rate : scalar.parameters[0]) rate = -std::log(16.0);
    for (double& bias : scalar.parameters[1]) bias = 0.0;
    CoreRun expected = run_core<double>(*reference_core(kMamba2, dims.d_h), scalar);
    expected.dparameters.clear();
    for (double& slope : expected.dmore[0]) slope = -slope;
    for (const auto& core :
         {production_core<double>(kGla, dims.d_h), reference_core(kGla, dims.d_h)}) {
      CoreRun run = run_core<double>(*core, tensors);
      std::vector<double> sums(scalar.more[0].size(), 0.0);
      for (std::size_t i = 0; i < run.dmore[0].size(); ++i) {
        sums[i / static_cast<std::size_t>(dims.d_h)] += run.dmore[0][i];
      }
      run.dmore[0] = sums;
      expect_same_run(run, expected, rounding_tolerance<double>(dims), describe(dims));
    }
  }
}

// alpha is 1 to the last bit at a logit of 1000, and exp(-1000 / 16) at -1000.
TEST(Gla, ChannelsDecayApart) {
  const HeadDims dims{.batch = 1, .tokens = 40, .heads = 2, .d_h = 16};
  CoreTensors tensors = random_tensors(kGla, dims, 82);
  for (std::size_t i = 0; i < tensors.more[0].size(); ++i) {
    tensors.more[0][i] = i % 3 == 0 ? 1000.0 : -1000.0;
  }
  expect_matches_reference<double>(kGla, tensors);
  expect_matches_reference<float>(kGla, tensors);
}

TEST(Gla, MemoryRuleIsTheSumOfOuterProducts) {
  const auto memory = production_core<double>(kGla, 2)->memory();
  const double key1[] = {1, 0}, value1[] = {3, 4}, key2[] = {0, 2}, value2[] = {5, 6};
  memory->write(key1, value1);
  memory->write(key2, value2);
  const double query[] = {1, 1};
  double out[2];
  memory->read(query, out);
  EXPECT_EQ(out[0], 13);
  EXPECT_EQ(out[1], 16);
}

}  // namespace
}  // namespace vla_bench::testing
