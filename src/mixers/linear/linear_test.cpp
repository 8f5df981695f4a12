#include "mixers/linear/linear.h"

#include <gtest/gtest.h>

#include "testing/mixer_cases.h"

namespace vla_bench::testing {
namespace {

const MixerConfig kLinear{.options = LinearOptions{}};

TEST(Linear, MeetsTheContract) { expect_contract(kLinear); }

// q and k near -9: features near e^-9 = 1.2e-4, so z.q starts near d (1.2e-4)^2 = 2e-7 under the
// floor 1e-6 and grows past it: both branches of the clamp within one sequence.
TEST(Linear, ClampedDenominator) {
  const HeadDims dims{.batch = 1, .tokens = 40, .heads = 2, .d_h = 16};
  const CoreTensors tensors = random_tensors(kLinear, dims, 5, 0.1, -9.0);
  expect_matches_reference<double>(kLinear, tensors);
  // Outputs are quotients of sums of products of rounded exponentials: a few ulp more.
  expect_matches_reference<float>(kLinear, tensors, 4 * rounding_tolerance<float>(dims));
  const HeadDims small{.batch = 1, .tokens = 9, .heads = 1, .d_h = 5};
  // At -11 all of them are clamped: 9 * 5 * e^-22 = 1.3e-8, away from the kink.
  expect_central_differences(*reference_core(kLinear, 5),
                             random_tensors(kLinear, small, 6, 0.1, -11.0));
}

// One token, one channel, q = k = -9: f = p = e^-9, c = e^-18 = 1.523e-8 is below the floor of
// 1e-6.
//   o = v e^-18 / 1e-6,  dv = e^-18 / 1e-6,  dq = dk = v e^-9 / 1e-6 phi'(-9) = v e^-18 / 1e-6
// by hand, with g = 1 and phi' = e^x; without the clamp o were v, and dq and dk 0.
TEST(Linear, ClampedDenominatorByHand) {
  EXPECT_EQ(mixers::LinearRule::kFloor, 1e-6);
  constexpr double kQuotient = 0.015229979744712628;  // e^-18 / 1e-6
  CoreTensors tensors{.dims = {.batch = 1, .tokens = 1, .heads = 1, .d_h = 1}};
  tensors.q = tensors.k = {-9.0};
  tensors.v = {2.0};
  tensors.d_o = {1.0};
  const auto expect = [](const CoreRun& run, double tolerance) {
    EXPECT_NEAR(run.o[0], 2 * kQuotient, tolerance);
    EXPECT_NEAR(run.dv[0], kQuotient, tolerance);
    EXPECT_NEAR(run.dq[0], 2 * kQuotient, tolerance);
    EXPECT_NEAR(run.dk[0], 2 * kQuotient, tolerance);
  };
  // A handful of roundings; exp at -9 may be off by an ulp, which counts twice.
  expect(run_core<double>(*reference_core(kLinear, 1), tensors), 1e-16);
  expect(run_core<double>(*production_core<double>(kLinear, 1), tensors), 1e-16);
  expect(run_core<float>(*production_core<float>(kLinear, 1), tensors), 1e-8);
}

// o_t = sum_{s<=t} v_s (f_s . p_t) / sum_{s<=t} f_s . p_t, evaluated pair by pair.
TEST(Linear, EqualsItsQuadraticForm) {
  const HeadDims dims{.batch = 1, .tokens = 45, .heads = 1, .d_h = 16};
  const CoreTensors tensors = random_tensors(kLinear, dims, 7);
  const auto phi = [](double x) { return x > 0 ? x + 1 : std::exp(x); };
  const auto at = [&](Index t, Index i) { return static_cast<std::size_t>(t * dims.d_h + i); };
  std::vector<double> expected(tensors.q.size(), 0.0);
  for (Index t = 0; t < dims.tokens; ++t) {
    double total = 0.0;
    for (Index s = 0; s <= t; ++s) {
      double weight = 0.0;
      for (Index i = 0; i < dims.d_h; ++i) {
        weight += phi(tensors.k[at(s, i)]) * phi(tensors.q[at(t, i)]);
      }
      total += weight;
      for (Index i = 0; i < dims.d_h; ++i) expected[at(t, i)] += weight * tensors.v[at(s, i)];
    }
    for (Index i = 0; i < dims.d_h; ++i) expected[at(t, i)] /= total;
  }
  const CoreRun run = run_core<double>(*production_core<double>(kLinear, 16), tensors, 1, false);
  EXPECT_TRUE(near("o", std::span<const double>(run.o), std::span<const double>(expected),
                   rounding_tolerance<double>(dims)));
}

TEST(Linear, MemoryRuleIsTheSumOfOuterProducts) {
  const auto memory = production_core<double>(kLinear, 2)->memory();
  const double key1[] = {1, 0}, value1[] = {3, 4}, key2[] = {0, 2}, value2[] = {5, 6};
  memory->write(key1, value1);
  memory->write(key2, value2);
  const double query[] = {1, 1};
  double out[2];
  memory->read(query, out);
  EXPECT_EQ(out[0], 13);
  EXPECT_EQ(out[1], 16);
  EXPECT_DOUBLE_EQ(memory->state_norm(), std::sqrt(9 + 16 + 100 + 144));
  ASSERT_TRUE(memory->jacobian().has_value());
  EXPECT_EQ(memory->jacobian()->k, std::vector<double>(2, 0.0));
  memory->reset();
  EXPECT_EQ(memory->state_norm(), 0.0);
}

}  // namespace
}  // namespace vla_bench::testing
