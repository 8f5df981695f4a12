#include "mixers/preconditioned_gated_deltanet/preconditioned_gated_deltanet.h"

#include <gtest/gtest.h>

#include <cmath>

#include "testing/mixer_cases.h"
#include "testing/plain_mixers.h"

namespace vla_bench::testing {
namespace {

const MixerConfig kPreconditioned{.options = PreconditionedGatedDeltaNetOptions{}};

TEST(PreconditionedGatedDeltaNet, MeetsTheContract) { expect_contract(kPreconditioned); }

/// m where a channel was used p.
double preconditioner(double p) {
  const double y = std::log(p + 1e-6) + 0.2;
  return std::pow(1.5, -y / (1 + std::abs(y)));
}

// With beta_p = 0 no channel is ever used, m is the same number everywhere, and a write of strength
// beta is Gated DeltaNet's of strength m beta.
TEST(PreconditionedGatedDeltaNet, IsGatedDeltaNetWhereNoChannelIsUsed) {
  const HeadDims dims{.batch = 2, .tokens = 45, .heads = 3, .d_h = 16};
  CoreTensors tensors = random_tensors(kPreconditioned, dims, 71);
  std::fill(tensors.more[2].begin(), tensors.more[2].end(), -1000.0);
  CoreTensors gated = tensors;
  for (auto* values : {&gated.more, &gated.parameters}) values->resize(2);
  gated.widths.resize(2);
  const double m = preconditioner(0.0);
  ASSERT_GT(m, 1.4);
  for (double& logit : tensors.more[0]) logit = static_cast<float>(logit - 2.0);  // m beta below 1
  for (std::size_t i = 0; i < gated.more[0].size(); ++i) {
    const double beta = m / (1 + std::exp(-tensors.more[0][i]));
    gated.more[0][i] = std::log(beta / (1 - beta));
  }
  const CoreRun expected = run_core<double>(*reference_core(kGatedDeltaNet, 16), gated);
  for (const auto& core :
       {production_core<double>(kPreconditioned, 16), reference_core(kPreconditioned, 16)}) {
    const CoreRun run = run_core<double>(*core, tensors);
    EXPECT_TRUE(near("o", std::span<const double>(run.o), std::span<const double>(expected.o),
                     rounding_tolerance<double>(dims)));
    EXPECT_TRUE(near("dv", std::span<const double>(run.dv), std::span<const double>(expected.dv),
                     rounding_tolerance<double>(dims)));
  }
}

// Two tokens of one head: p_2 = g p_1 + beta_p k * k, and what the second writes lies along m * k.
TEST(PreconditionedGatedDeltaNet, WritesAlongItsPreconditionedKey) {
  const double a_log[] = {0.3}, bias[] = {-0.2}, a_log_p[] = {-0.5}, bias_p[] = {0.4};
  const double closed = -1000.0, open = 1000.0, b_p = 0.6, x_p = 0.7, x = 0.1;
  const double raw_k[] = {1.5, -0.5}, q[] = {2.0, 0.1}, v[] = {1.0, 0.5};
  const auto memory = production_core<double>(kPreconditioned, 2)->memory();
  double o[2];
  memory->step({q, raw_k, v, {&closed, &x, &b_p, &x_p}, {a_log, bias, a_log_p, bias_p}}, o);
  EXPECT_EQ(memory->state_norm(), 0.0) << "beta = 0 writes nothing";
  memory->step({q, raw_k, v, {&open, &x, &b_p, &x_p}, {a_log, bias, a_log_p, bias_p}}, o);

  double k[2], squares = 0.0;
  for (int i = 0; i < 2; ++i) k[i] = raw_k[i] / (1 + std::exp(-raw_k[i]));
  for (const double value : k) squares += value * value;
  for (double& value : k) value /= std::sqrt(squares);
  const double g = std::exp(-std::exp(a_log_p[0]) * std::log1p(std::exp(x_p + bias_p[0])));
  const double beta_p = 1 / (1 + std::exp(-b_p));
  for (int j = 0; j < 2; ++j) {
    double column[2];
    const double query[] = {j == 0 ? 1.0 : 0.0, j == 0 ? 0.0 : 1.0};
    memory->read(query, column);
    const double p = (g + 1) * beta_p * k[j] * k[j];
    for (int i = 0; i < 2; ++i) EXPECT_NEAR(column[i], v[i] * preconditioner(p) * k[j], 1e-14);
  }
}

// An empty state takes the share k . (m * k) of a value.
TEST(PreconditionedGatedDeltaNet, MemoryRuleWritesAndSums) {
  const auto memory = production_core<double>(kPreconditioned, 2)->memory();
  const double first[] = {1, 0}, second[] = {0.6, 0.8}, value[] = {1, 2}, none[] = {0, 0};
  memory->write(first, none);
  memory->write(second, value);
  const double m[] = {preconditioner(1.36), preconditioner(0.64)};
  const double along = 0.36 * m[0] + 0.64 * m[1];
  double out[2];
  memory->read(second, out);
  for (int i = 0; i < 2; ++i) EXPECT_NEAR(out[i], value[i] * along, 1e-14);
  const auto jacobian = memory->jacobian();
  ASSERT_TRUE(jacobian.has_value());
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(jacobian->k[i], second[i], 1e-15);
    EXPECT_NEAR(jacobian->a[i], m[i] * second[i], 1e-15);
  }
}

TEST(PreconditionedGatedDeltaNet, StateHasTheRunningSum) {
  const HeadDims dims{.batch = 3, .tokens = 50, .heads = 2, .d_h = 8};
  EXPECT_EQ(reference_core(kPreconditioned, 8)->state_bytes(dims), 6 * (64 + 8) * 8);
  EXPECT_EQ(production_core<float>(kPreconditioned, 8)->state_bytes(dims), 6 * (64 + 8) * 4);
}

}  // namespace
}  // namespace vla_bench::testing
