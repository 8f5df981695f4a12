#include "mixers/gated_deltanet/gated_deltanet.h"

#include <gtest/gtest.h>

#include <cmath>

#include "testing/mixer_cases.h"
#include "testing/plain_mixers.h"

namespace vla_bench::testing {
namespace {

TEST(GatedDeltaNet, MeetsTheContract) { expect_contract(kGatedDeltaNet); }

// A decay's logit of -1000 has a softplus of 0 and so alpha = 1.
TEST(GatedDeltaNet, IsStandardDeltaNetWhereNothingDecays) {
  for (const HeadDims& dims : {HeadDims{2, 45, 3, 16}, HeadDims{1, 33, 2, 5}}) {
    CoreTensors tensors = random_tensors(kGatedDeltaNet, dims, 51);
    std::fill(tensors.more[1].begin(), tensors.more[1].end(), -1000.0);
    CoreTensors without = tensors;
    without.more.pop_back();
    without.widths.pop_back();
    without.parameters.clear();
    const CoreRun expected =
        run_core<double>(*reference_core(kStandardDeltaNet, dims.d_h), without);
    for (const auto& core : {production_core<double>(kGatedDeltaNet, dims.d_h),
                             reference_core(kGatedDeltaNet, dims.d_h)}) {
      CoreRun run = run_core<double>(*core, tensors);
      for (const double slope : run.dmore[1]) EXPECT_EQ(slope, 0.0) << "softplus is flat there";
      run.dmore.pop_back();
      run.dparameters.clear();
      expect_same_run(run, expected, rounding_tolerance<double>(dims), describe(dims));
    }
  }
}

// alpha of 1e-300 and below forgets everything: what a token reads is its own write.
TEST(GatedDeltaNet, StrongDecayLeavesTheLastWrite) {
  const HeadDims dims{.batch = 1, .tokens = 40, .heads = 2, .d_h = 16};
  CoreTensors tensors = random_tensors(kGatedDeltaNet, dims, 52);
  for (double& logit : tensors.more[1]) logit = 2000.0;
  expect_matches_reference<double>(kGatedDeltaNet, tensors);
  expect_matches_reference<float>(kGatedDeltaNet, tensors);
  const CoreRun run =
      run_core<double>(*production_core<double>(kGatedDeltaNet, 16), tensors, 1, false);
  const auto memory = production_core<double>(kGatedDeltaNet, 16)->memory(1);
  const std::size_t last = (39 * 2 + 1) * 16;
  std::vector<std::vector<double>> one(2);
  for (std::size_t i = 0; i < 2; ++i) one[i] = {tensors.more[i].back()};
  std::vector<double> o(16);
  memory->step({tensors.q.data() + last,
                tensors.k.data() + last,
                tensors.v.data() + last,
                {one[0].data(), one[1].data()},
                {tensors.parameters[0].data(), tensors.parameters[1].data()}},
               o.data());
  EXPECT_TRUE(
      near("o", std::span<const double>(o), std::span<const double>(run.o).subspan(last), 1e-14));
}

TEST(GatedDeltaNet, MemoryRuleReplacesTheValueOfAKeyAndForgetsNothing) {
  const auto memory = production_core<double>(kGatedDeltaNet, 2)->memory();
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
  const auto jacobian = memory->jacobian();
  ASSERT_TRUE(jacobian.has_value());
  EXPECT_EQ(jacobian->k, (std::vector<double>{0.6, 0.8}));
  EXPECT_TRUE(jacobian->decay.empty());
}

TEST(GatedDeltaNet, JacobianOfAStep) {
  const auto memory = production_core<double>(kGatedDeltaNet, 2)->memory();
  const double x[] = {0.5, -0.25}, strength = 0.4, logit = 0.7, a_log = -0.3, bias = 0.1;
  double out[2];
  memory->step({x, x, x, {&strength, &logit}, {&a_log, &bias}}, out);
  const StepJacobian jacobian = memory->jacobian().value();
  const double alpha = std::exp(-std::exp(a_log) * std::log1p(std::exp(logit + bias)));
  const double beta = 1 / (1 + std::exp(-strength));
  double squares = 0.0;
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(jacobian.decay[i], alpha, 1e-15);
    EXPECT_NEAR(jacobian.a[i], beta * jacobian.k[i], 1e-15);
    squares += jacobian.k[i] * jacobian.k[i];
  }
  EXPECT_NEAR(squares, 1.0, 1e-14);
}

}  // namespace
}  // namespace vla_bench::testing
