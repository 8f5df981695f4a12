#include "mixers/kda/kda.h"

#include <gtest/gtest.h>

#include <cmath>

#include "testing/mixer_cases.h"
#include "testing/plain_mixers.h"

namespace vla_bench::testing {
namespace {

const MixerConfig kKda{.options = KdaOptions{}};

TEST(Kda, MeetsTheContract) { expect_contract(kKda); }

/// A number per token and head on all channels.
std::vector<double> spread(const std::vector<double>& scalars, Index d) {
  std::vector<double> channels;
  for (const double scalar : scalars)
    channels.insert(channels.end(), static_cast<std::size_t>(d), scalar);
  return channels;
}
/// The sums over channels.
std::vector<double> gathered(const std::vector<double>& channels, Index d) {
  std::vector<double> sums(channels.size() / static_cast<std::size_t>(d), 0.0);
  for (std::size_t i = 0; i < channels.size(); ++i)
    sums[i / static_cast<std::size_t>(d)] += channels[i];
  return sums;
}

// Equal logits and dt_bias on all channels of a head: outputs are the same, and a gradient of the
// gate is the sum of those of its channels.
TEST(Kda, WithEqualChannelsIsGatedDeltaNet) {
  for (const HeadDims& dims : {HeadDims{2, 45, 3, 16}, HeadDims{1, 33, 2, 5}}) {
    const CoreTensors gated = random_tensors(kGatedDeltaNet, dims, 71);
    CoreTensors tensors = gated;
    tensors.widths[1] = dims.d_h;
    tensors.more[1] = spread(gated.more[1], dims.d_h);
    tensors.parameters[1] = spread(gated.parameters[1], dims.d_h);
    const CoreRun expected = run_core<double>(*reference_core(kGatedDeltaNet, dims.d_h), gated);
    for (const auto& core :
         {production_core<double>(kKda, dims.d_h), reference_core(kKda, dims.d_h)}) {
      CoreRun run = run_core<double>(*core, tensors);
      run.dmore[1] = gathered(run.dmore[1], dims.d_h);
      run.dparameters[1] = gathered(run.dparameters[1], dims.d_h);
      expect_same_run(run, expected, rounding_tolerance<double>(dims), describe(dims));
    }
  }
}

// A decay's logit of -1000 has a softplus of 0 and so alpha = 1.
TEST(Kda, IsStandardDeltaNetWhereNothingDecays) {
  const HeadDims dims{.batch = 2, .tokens = 45, .heads = 3, .d_h = 16};
  CoreTensors tensors = random_tensors(kKda, dims, 72);
  std::fill(tensors.more[1].begin(), tensors.more[1].end(), -1000.0);
  CoreTensors without = tensors;
  without.more.pop_back();
  without.widths.pop_back();
  without.parameters.clear();
  const CoreRun expected = run_core<double>(*reference_core(kStandardDeltaNet, dims.d_h), without);
  CoreRun run = run_core<double>(*production_core<double>(kKda, dims.d_h), tensors);
  for (const double slope : run.dmore[1]) EXPECT_EQ(slope, 0.0) << "softplus is flat there";
  run.dmore.pop_back();
  run.dparameters.clear();
  expect_same_run(run, expected, rounding_tolerance<double>(dims), describe(dims));
}

// Some channels forget everything at every token and others nothing.
TEST(Kda, ChannelsDecayApart) {
  const HeadDims dims{.batch = 1, .tokens = 40, .heads = 2, .d_h = 16};
  CoreTensors tensors = random_tensors(kKda, dims, 73);
  for (std::size_t i = 0; i < tensors.more[1].size(); ++i) {
    tensors.more[1][i] = i % 3 == 0 ? 2000.0 : -2000.0;
  }
  expect_matches_reference<double>(kKda, tensors);
  expect_matches_reference<float>(kKda, tensors);

  const double a_log = 0.3, bias[] = {0.1, -0.2}, x[] = {0.7, -0.4}, strength = 40;
  const double q0[] = {9, -40}, q1[] = {-40, 9}, k[] = {1, 2}, zero[] = {0, 0}, v[] = {3, 4};
  for (const double* q : {q0, q1}) {  // unit(silu(q)) is a channel, to 1e-17
    const auto memory = production_core<double>(kKda, 2)->memory();
    double first[2], second[2];
    memory->step({q, k, v, {&strength, x}, {&a_log, bias}}, first);
    memory->step({q, zero, v, {&strength, x}, {&a_log, bias}}, second);
    const int j = q == q0 ? 0 : 1;
    const double alpha = std::exp(-std::exp(a_log) * std::log1p(std::exp(x[j] + bias[j])));
    for (int i = 0; i < 2; ++i) EXPECT_NEAR(second[i], alpha * first[i], 1e-13);
    EXPECT_NEAR(memory->jacobian().value().decay[static_cast<std::size_t>(j)], alpha, 1e-15);
  }
}

TEST(Kda, MemoryRuleReplacesTheValueOfAKeyAndForgetsNothing) {
  const auto memory = production_core<double>(kKda, 2)->memory();
  const double key[] = {0.6, 0.8}, other[] = {-0.8, 0.6};
  const double first[] = {1, 2}, second[] = {-3, 5}, kept[] = {7, 9};
  memory->write(other, kept);
  memory->write(key, first);
  memory->write(key, second);
  double out[2];
  memory->read(key, out);
  EXPECT_NEAR(out[0], -3, 1e-14);
  EXPECT_NEAR(out[1], 5, 1e-14);
  memory->read(other, out);
  EXPECT_NEAR(out[0], 7, 1e-14);
  EXPECT_NEAR(out[1], 9, 1e-14);
}

}  // namespace
}  // namespace vla_bench::testing
