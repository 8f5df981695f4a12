#include "mixers/mesa/mesa.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>

#include "testing/mixer_cases.h"

namespace vla_bench::testing {
namespace {

const MixerConfig kMesa{.options = MesaOptions{}};

TEST(Mesa, MeetsTheContract) { expect_contract(kMesa); }

// Gates that forget little: H grows to some 20 outer products, and lambda of .3 to 3 beside it.
TEST(Mesa, EqualsTheReferenceWhereKeysPileUp) {
  const HeadDims dims{.batch = 1, .tokens = 130, .heads = 2, .d_h = 16};
  CoreTensors tensors = random_tensors(kMesa, dims, 91);
  for (double& logit : tensors.more[1]) logit += 4.0;
  for (double& value : tensors.parameters[0]) value *= 2.0;
  expect_matches_reference<double>(kMesa, tensors);
  expect_matches_reference<float>(kMesa, tensors);
}

void make_unit_silu(std::vector<double>& x) {
  double squares = 0.0;
  for (double& value : x) {
    value /= 1 + std::exp(-value);
    squares += value * value;
  }
  for (double& value : x) value /= std::sqrt(squares);
}

// Open gates, lambda = 1: the output is V K^T (K K^T + I)^-1 q of all tokens so far, ridge
// regression as it stands in textbooks.
TEST(Mesa, AnswersByRidgeRegression) {
  constexpr Index d = 6, tokens = 9;
  const HeadDims dims{.batch = 1, .tokens = tokens, .heads = 1, .d_h = d};
  CoreTensors tensors = random_tensors(kMesa, dims, 92);
  for (auto& logits : tensors.more) std::fill(logits.begin(), logits.end(), 1000.0);
  std::fill(tensors.parameters[0].begin(), tensors.parameters[0].end(), 0.0);
  const auto column = [&](const std::vector<double>& values, Index t) {
    return std::vector<double>(values.begin() + t * d, values.begin() + (t + 1) * d);
  };
  for (const auto& core : {production_core<double>(kMesa, d), reference_core(kMesa, d)}) {
    const CoreRun run = run_core<double>(*core, tensors, 1, false);
    const auto memory = core->memory();
    Eigen::MatrixXd normal = Eigen::MatrixXd::Identity(d, d), cross = Eigen::MatrixXd::Zero(d, d);
    for (Index t = 0; t < tokens; ++t) {
      auto k = column(tensors.k, t), q = column(tensors.q, t);
      const auto v = column(tensors.v, t);
      make_unit_silu(k);
      make_unit_silu(q);
      const Eigen::Map<const Eigen::VectorXd> key(k.data(), d), query(q.data(), d),
          value(v.data(), d);
      normal += key * key.transpose();
      cross += value * key.transpose();
      const Eigen::VectorXd expected = cross * normal.ldlt().solve(query);
      memory->write(k.data(), v.data());
      std::vector<double> read(d);
      memory->read(q.data(), read.data());
      for (Index i = 0; i < d; ++i) {
        EXPECT_NEAR(run.o[static_cast<std::size_t>(t * d + i)], expected[i], 1e-13);
        EXPECT_NEAR(read[static_cast<std::size_t>(i)], expected[i], 1e-13) << "of the memory rule";
      }
      EXPECT_NEAR(memory->state_norm(), cross.norm(), 1e-12);
    }
  }
}

// gamma = sigmoid(-1000) = 0 leaves the token's own pair: o = v beta (k'. x), (beta k' k'^T + I) x
// = q'.
TEST(Mesa, ClosedGatesForgetAllButTheToken) {
  const HeadDims dims{.batch = 2, .tokens = 40, .heads = 2, .d_h = 16};
  CoreTensors tensors = random_tensors(kMesa, dims, 93);
  std::fill(tensors.more[1].begin(), tensors.more[1].end(), -1000.0);
  std::fill(tensors.parameters[0].begin(), tensors.parameters[0].end(), 0.0);
  expect_matches_reference<float>(kMesa, tensors);
  const CoreRun run = run_core<double>(*production_core<double>(kMesa, 16), tensors);
  for (std::size_t at = 0; at < tensors.v.size(); at += 16) {
    const auto first = static_cast<std::ptrdiff_t>(at);
    std::vector<double> k(tensors.k.begin() + first, tensors.k.begin() + first + 16);
    std::vector<double> q(tensors.q.begin() + first, tensors.q.begin() + first + 16);
    make_unit_silu(k);
    make_unit_silu(q);
    double along = 0.0;
    for (std::size_t i = 0; i < 16; ++i) along += k[i] * q[i];
    const double beta = 1 / (1 + std::exp(-tensors.more[0][at / 16]));
    for (std::size_t i = 0; i < 16; ++i) {
      EXPECT_NEAR(run.o[at + i], tensors.v[at + i] * along * beta / (1 + beta), 1e-14);
    }
  }
}

TEST(Mesa, StateIsTwoMatrices) {
  const HeadDims dims{.batch = 3, .tokens = 50, .heads = 2, .d_h = 8};
  EXPECT_EQ(reference_core(kMesa, 8)->state_bytes(dims), 6 * 2 * 64 * 8);
  EXPECT_EQ(production_core<float>(kMesa, 8)->state_bytes(dims), 6 * 2 * 64 * 4);
}

}  // namespace
}  // namespace vla_bench::testing
