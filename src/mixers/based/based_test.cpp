#include "mixers/based/based.h"

#include <gtest/gtest.h>

#include <cmath>

#include "testing/mixer_cases.h"

namespace vla_bench::testing {
namespace {

MixerConfig based(Index feature_dim) {
  return {.options = BasedOptions{.feature_dim = feature_dim}};
}

TEST(Based, MeetsTheContract) { expect_contract(based(16)); }

TEST(Based, EqualsTheReferenceForAnyNumberOfChannels) {
  const HeadDims dims{.batch = 1, .tokens = 37, .heads = 2, .d_h = 16};
  for (const Index n : {1, 2, 5, 8, 24, 32}) {
    const CoreTensors tensors = random_tensors(based(n), dims, 91);
    expect_matches_reference<double>(based(n), tensors);
    expect_matches_reference<float>(based(n), tensors);
  }
}

// o_t = sum_{s<=t} w_ts v_s / sum_{s<=t} w_ts, w = 1 + x + x^2 / 2, x = q_t . k_s / sqrt(n),
// evaluated pair by pair.
TEST(Based, EqualsItsQuadraticForm) {
  constexpr Index n = 8;
  const HeadDims dims{.batch = 1, .tokens = 45, .heads = 2, .d_h = 16};
  const CoreTensors tensors = random_tensors(based(n), dims, 92);
  const auto at = [&](Index t, Index h, Index width, Index i) {
    return static_cast<std::size_t>((t * dims.heads + h) * width + i);
  };
  std::vector<double> expected(tensors.v.size(), 0.0);
  for (Index h = 0; h < dims.heads; ++h) {
    for (Index t = 0; t < dims.tokens; ++t) {
      double total = 0.0;
      for (Index s = 0; s <= t; ++s) {
        double x = 0.0;
        for (Index i = 0; i < n; ++i) x += tensors.q[at(t, h, n, i)] * tensors.k[at(s, h, n, i)];
        x /= std::sqrt(static_cast<double>(n));
        const double weight = 1 + x + x * x / 2;
        total += weight;
        for (Index i = 0; i < dims.d_h; ++i) {
          expected[at(t, h, dims.d_h, i)] += weight * tensors.v[at(s, h, dims.d_h, i)];
        }
      }
      for (Index i = 0; i < dims.d_h; ++i) expected[at(t, h, dims.d_h, i)] /= total;
    }
  }
  for (const auto& core : {production_core<double>(based(n), 16), reference_core(based(n), 16)}) {
    const CoreRun run = run_core<double>(*core, tensors, 1, false);
    EXPECT_TRUE(near("o", std::span<const double>(run.o), std::span<const double>(expected),
                     rounding_tolerance<double>(dims)));
  }
}

// n = 4: 1 + 4 + 10 features hold what 1 + 4 + 16 do, with the same norm of S.
TEST(Based, StateHoldsEachPairOnce) {
  constexpr Index n = 4, d = 3;
  EXPECT_EQ(mixers::taylor_features(n), 15);
  const auto core = production_core<double>(based(n), d);
  const HeadDims dims{.batch = 1, .tokens = 1, .heads = 1, .d_h = d};
  EXPECT_EQ(core->state_bytes(dims), 15 * (d + 1) * 8);
  EXPECT_EQ(reference_core(based(n), d)->state_bytes(dims), 21 * (d + 1) * 8);
  EXPECT_EQ(state_size(BasedOptions{.feature_dim = n}, 1, d), 15 * (d + 1));

  const auto memory = core->memory();
  const double k[] = {0.3, -1, 2, 0.5}, v[] = {1, 2, -2};
  double o[d];
  memory->step({k, k, v}, o);
  for (Index i = 0; i < d; ++i) EXPECT_NEAR(o[i], v[i], 1e-15);
  const double x = (0.09 + 1 + 4 + 0.25) / 2;  // k . k / sqrt(n) = 5.34 / 2
  EXPECT_NEAR(memory->state_norm(), 3 * std::sqrt(1 + x + x * x / 2), 1e-13);
}

// Keys of unit length are taken at length sqrt(n): orthogonal ones leave 1 of 1 + 2 + 2 behind.
TEST(Based, MemoryRuleAddsUnderTheFeaturesOfAKey) {
  const auto memory = production_core<double>(based(4), 2)->memory();
  const double key1[] = {1, 0, 0, 0}, value1[] = {3, 4}, key2[] = {0, 0.6, 0.8, 0},
               value2[] = {5, 6};
  memory->write(key1, value1);
  memory->write(key2, value2);
  double out[2];
  memory->read(key1, out);
  EXPECT_NEAR(out[0], 5 * 3 + 5, 1e-13);
  EXPECT_NEAR(out[1], 5 * 4 + 6, 1e-13);
  EXPECT_EQ(memory->jacobian().value().k, std::vector<double>(2, 0.0));
  memory->reset();
  EXPECT_EQ(memory->state_norm(), 0.0);
}

}  // namespace
}  // namespace vla_bench::testing
