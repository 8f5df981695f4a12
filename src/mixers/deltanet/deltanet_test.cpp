#include <gtest/gtest.h>

#include "testing/mixer_cases.h"
#include "testing/plain_mixers.h"

namespace vla_bench::testing {
namespace {

const MixerConfig kPaper{.options = DeltaNetOptions{.variant = DeltaNetVariant::paper}};

TEST(DeltaNet, PaperVariantMeetsTheContract) { expect_contract(kPaper); }
TEST(DeltaNet, StandardVariantMeetsTheContract) { expect_contract(kStandardDeltaNet); }

// Keys shorter than 1e-12, zero included: unit() divides by its floor and passes gradients without
// the projection (times 1e12: the comparison is relative to the largest).
TEST(DeltaNet, ShortKeysTakeTheFloorOfUnit) {
  for (const MixerConfig& mixer : {kPaper, kStandardDeltaNet}) {
    const HeadDims dims{.batch = 1, .tokens = 20, .heads = 2, .d_h = 8};
    for (double shrink : {0.0, 2e-13}) {
      CoreTensors tensors = random_tensors(mixer, dims, 21);
      for (Index t : {0, 7, 19}) {
        for (Index i = t * 16; i < (t + 1) * 16; ++i) {
          double& value = tensors.k[static_cast<std::size_t>(i)];
          value = static_cast<float>(shrink * value);
        }
      }
      expect_matches_reference<double>(mixer, tensors);
      expect_matches_reference<float>(mixer, tensors);
    }
  }
}

// Saturated gates: sigmoid(+-30) is 1 and 9e-14, the two ends of what a gate can do.
TEST(DeltaNet, SaturatedGates) {
  for (const MixerConfig& mixer : {kPaper, kStandardDeltaNet}) {
    const HeadDims dims{.batch = 1, .tokens = 40, .heads = 2, .d_h = 16};
    CoreTensors tensors = random_tensors(mixer, dims, 22);
    std::vector<double>& logits = tensors.more[0];
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = i % 3 == 0 ? -30 : 30;
    expect_matches_reference<double>(mixer, tensors);
    expect_matches_reference<float>(mixer, tensors);
  }
}

// The gate's gradient is taken from states that the backward computes again, segment by segment:
// their rounding adds up like a random walk over tokens (rounding_tolerance's sqrt(T)), it does not
// drift.
TEST(DeltaNet, GateGradientOfALongSequence) {
  const HeadDims dims{.batch = 1, .tokens = 2000, .heads = 1, .d_h = 16};
  expect_matches_reference<float>(kPaper, random_tensors(kPaper, dims, 23));
}

// With unit keys, an open gate and strength 1 a write makes its key read back its value exactly.
TEST(DeltaNet, MemoryRuleReplacesTheValueOfAKey) {
  for (const MixerConfig& mixer : {kPaper, kStandardDeltaNet}) {
    const auto memory = production_core<double>(mixer, 2)->memory();
    const double key[] = {0.6, 0.8}, first[] = {1, 2}, second[] = {-3, 5};
    memory->write(key, first);
    memory->write(key, second);
    double out[2];
    memory->read(key, out);
    EXPECT_NEAR(out[0], -3, 1e-15);
    EXPECT_NEAR(out[1], 5, 1e-15);
    EXPECT_NEAR(memory->state_norm(), std::sqrt(34.0), 1e-14);
    const auto jacobian = memory->jacobian();
    ASSERT_TRUE(jacobian.has_value());
    EXPECT_EQ(jacobian->k, (std::vector<double>{0.6, 0.8}));
    EXPECT_EQ(jacobian->a, (std::vector<double>{0.6, 0.8}));
  }
}

TEST(DeltaNet, JacobianOfAStep) {
  const double x[] = {0.5, -0.25, 1.0};
  double o[3];
  const double gates[] = {0.1, 0.2, 0.3};
  const auto paper = production_core<double>(kPaper, 3)->memory();
  paper->step({x, x, x, {gates}}, o);
  EXPECT_FALSE(paper->jacobian().has_value()) << "a gate acts from the left";

  const auto standard = production_core<double>(kStandardDeltaNet, 3)->memory();
  const double beta_logit = 0.4;
  standard->step({x, x, x, {&beta_logit}}, o);
  const auto jacobian = standard->jacobian();
  ASSERT_TRUE(jacobian.has_value());
  const double beta = 1 / (1 + std::exp(-beta_logit));
  double length = 0.0;
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(jacobian->a[i], beta * jacobian->k[i], 1e-15);
    length += jacobian->k[i] * jacobian->k[i];
  }
  EXPECT_NEAR(length, 1.0, 1e-15);
}

}  // namespace
}  // namespace vla_bench::testing
