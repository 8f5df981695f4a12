#include "mixers/mamba2/mamba2.h"

#include <gtest/gtest.h>

#include <cmath>

#include "testing/mixer_cases.h"
#include "testing/plain_mixers.h"

namespace vla_bench::testing {
namespace {

TEST(Mamba2, MeetsTheContract) { expect_contract(kMamba2); }

/// unit(silu(x)) of d channels.
std::vector<double> features(const double* x, Index d) {
  std::vector<double> y;
  double squares = 0.0;
  for (Index i = 0; i < d; ++i) {
    y.push_back(x[i] / (1 + std::exp(-x[i])));
    squares += y.back() * y.back();
  }
  for (double& value : y) value /= std::sqrt(squares);
  return y;
}

// A decay's logit of -1000 has a softplus of 0 and so alpha = 1: o_t = sum_{s<=t} v_s (k'_s .
// q'_t).
TEST(Mamba2, IsLinearAttentionWithoutNormaliserWhereNothingDecays) {
  const HeadDims dims{.batch = 1, .tokens = 45, .heads = 3, .d_h = 16};
  CoreTensors tensors = random_tensors(kMamba2, dims, 61);
  std::fill(tensors.more[0].begin(), tensors.more[0].end(), -1000.0);
  const auto at = [&](Index t, Index h) {
    return static_cast<std::size_t>((t * dims.heads + h) * dims.d_h);
  };
  std::vector<double> expected(tensors.q.size(), 0.0);
  for (Index h = 0; h < dims.heads; ++h) {
    for (Index t = 0; t < dims.tokens; ++t) {
      const std::vector<double> q = features(tensors.q.data() + at(t, h), dims.d_h);
      for (Index s = 0; s <= t; ++s) {
        const std::vector<double> k = features(tensors.k.data() + at(s, h), dims.d_h);
        double weight = 0.0;
        for (std::size_t i = 0; i < k.size(); ++i) weight += k[i] * q[i];
        for (std::size_t i = 0; i < k.size(); ++i) {
          expected[at(t, h) + i] += weight * tensors.v[at(s, h) + i];
        }
      }
    }
  }
  for (const auto& core : {production_core<double>(kMamba2, 16), reference_core(kMamba2, 16)}) {
    const CoreRun run = run_core<double>(*core, tensors, 1, false);
    EXPECT_TRUE(near("o", std::span<const double>(run.o), std::span<const double>(expected),
                     rounding_tolerance<double>(dims)));
  }
}

// Two tokens: the state before the second is exp(-exp(A_log) softplus(x + dt_bias)) of the first.
TEST(Mamba2, FadesByItsGate) {
  const double a_log[] = {0.0, 0.4}, bias[] = {0.0, -0.3}, x = 0.7;  // of the second head
  const double zero[] = {0, 0}, q[] = {1, 2}, k[] = {0.5, -1}, v[] = {3, 4};
  const auto memory = production_core<double>(kMamba2, 2)->memory(1);
  double first[2], second[2];
  memory->step({q, k, v, {&x}, {a_log, bias}}, first);
  memory->step({q, zero, v, {&x}, {a_log, bias}}, second);
  const double alpha = std::exp(-std::exp(0.4) * std::log1p(std::exp(0.7 - 0.3)));
  for (int i = 0; i < 2; ++i) EXPECT_NEAR(second[i], alpha * first[i], 1e-14);
  const StepJacobian jacobian = memory->jacobian().value();
  for (const double decay : jacobian.decay) EXPECT_NEAR(decay, alpha, 1e-15);
  EXPECT_EQ(jacobian.k, std::vector<double>(2, 0.0)) << "S is not read before a write";
}

}  // namespace
}  // namespace vla_bench::testing
