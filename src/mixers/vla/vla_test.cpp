#include "mixers/vla/vla.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <ostream>
#include <string>
#include <vector>

#include "mixers/penalty_memory.h"
#include "testing/mixer_cases.h"

namespace vla_bench {
namespace {

using testing::CoreTensors;
using testing::expect_contract;
using testing::expect_matches_reference;
using testing::random_tensors;

struct NamedVla {
  std::string name;
  MixerConfig config;
};
void PrintTo(const NamedVla& variant, std::ostream* out) { *out << variant.name; }

std::vector<NamedVla> named_variants() {
  const auto vla = [](auto change) {
    VlaOptions options;
    change(options);
    return MixerConfig{.options = options};
  };
  return {
      {"paper", vla([](VlaOptions&) {})},
      {"penalty_key", vla([](VlaOptions& c) { c.penalty = Penalty::key; })},
      {"penalty_frozen", vla([](VlaOptions& c) { c.penalty = Penalty::frozen; })},
      {"tied", vla([](VlaOptions& c) { c.residual = Residual::write; })},
      // Raw writes with lambda_0 below 1/2 overshoot: S would grow without bound.
      {"raw_write", vla([](VlaOptions& c) {
         c.write = WriteDirection::raw;
         c.lambda_0 = 2.0;
       })},
      {"raw_frozen", vla([](VlaOptions& c) {
         c.write = WriteDirection::raw;
         c.penalty = Penalty::frozen;
         c.lambda_0 = 2.0;
       })},
      {"tied_raw", vla([](VlaOptions& c) {
         c.residual = Residual::write;
         c.write = WriteDirection::raw;
         c.lambda_0 = 2.0;
       })},
      {"recursive_least_squares", vla([](VlaOptions& c) {
         c.penalty = Penalty::key;
         c.u_scale = 1.0;
         c.write = WriteDirection::raw;
         c.period = 0;
         c.lambda_0 = 1.0;
       })},
      {"identity_features", vla([](VlaOptions& c) {
         c.feature_map = FeatureMap::identity;
         c.normaliser = Normaliser::none;
       })},
      {"silu_features", vla([](VlaOptions& c) {
         c.feature_map = FeatureMap::silu;
         c.normaliser = Normaliser::none;
       })},
      {"relu_features", vla([](VlaOptions& c) {
         c.feature_map = FeatureMap::relu;
         c.normaliser = Normaliser::none;
       })},
      {"constants", vla([](VlaOptions& c) {
         c.lambda_0 = 0.5;
         c.per_eps = 0.01;
         c.period = 7;
         c.u_scale = 0.8;
       })},
      {"held", vla([](VlaOptions& c) {
         c.period = 4;
         c.per_eps = 0.05;
         c.hold_after = 6;
       })},
  };
}

class VlaVariant : public ::testing::TestWithParam<NamedVla> {};

TEST_P(VlaVariant, MeetsTheContractOfAMixer) { expect_contract(GetParam().config); }

INSTANTIATE_TEST_SUITE_P(All, VlaVariant, ::testing::ValuesIn(named_variants()),
                         [](const auto& variant) { return variant.param.name; });

// delta = 1 + u.Au starts near 1 + 1 / (d lambda_0) and falls towards 1; z.q' starts near d and
// grows. With the floor between those values both clamps are active on some tokens and not on
// others, so both branches of the backward run.
TEST(Vla, ClampsPassNoGradient) {
  MixerConfig config{.options = VlaOptions{}};
  config.get<VlaOptions>().lambda_0 = 0.5;
  const HeadDims dims{.batch = 2, .tokens = 9, .heads = 2, .d_h = 5};
  for (double stab_eps : {1.22, 1.3, 20.0}) {
    config.get<VlaOptions>().stab_eps = stab_eps;
    const auto tensors = random_tensors(config, dims, 21);
    testing::expect_central_differences(*testing::reference_core(config, 5), tensors);
    expect_matches_reference<double>(config, tensors);
    expect_matches_reference<float>(config, tensors);
  }
}

// Keys and penalty directions shorter than 1e-12, zero included: unit() divides by its floor and
// passes gradients without the projection (times 1e12: the comparison is relative to the largest).
TEST(Vla, ShortVectorsTakeTheFloorOfUnit) {
  const HeadDims dims{.batch = 1, .tokens = 20, .heads = 2, .d_h = 8};
  for (Penalty penalty : {Penalty::learned, Penalty::key, Penalty::frozen}) {
    MixerConfig config{.options = VlaOptions{}};
    config.get<VlaOptions>().penalty = penalty;
    config.get<VlaOptions>().feature_map = FeatureMap::identity;  // elu1 keeps keys away from zero
    config.get<VlaOptions>().normaliser = Normaliser::none;
    for (double shrink : {0.0, 2e-13}) {
      CoreTensors tensors = random_tensors(config, dims, 24);
      const auto shorten = [&](std::vector<double>& vectors) {
        for (Index t : {0, 7, 19}) {
          for (Index i = t * 16; i < (t + 1) * 16; ++i) {
            double& value = vectors[static_cast<std::size_t>(i)];
            value = static_cast<float>(shrink * value);
          }
        }
      };
      shorten(tensors.k);
      for (std::vector<double>& directions : tensors.more) shorten(directions);
      expect_matches_reference<double>(config, tensors);
      expect_matches_reference<float>(config, tensors);
    }
  }
}

TEST(Vla, AFrozenPenaltyHasNoState) {
  const HeadDims dims{.batch = 3, .tokens = 50, .heads = 2, .d_h = 8};
  MixerConfig config{.options = VlaOptions{}};
  EXPECT_EQ(testing::reference_core(config, 8)->state_bytes(dims), 6 * (64 + 64 + 8) * 8);
  EXPECT_EQ(testing::production_core<float>(config, 8)->state_bytes(dims), 6 * (64 + 64 + 8) * 4);
  config.get<VlaOptions>().penalty = Penalty::frozen;
  EXPECT_EQ(testing::reference_core(config, 8)->state_bytes(dims), 6 * (64 + 8) * 8);
  EXPECT_EQ(testing::production_core<float>(config, 8)->state_bytes(dims), 6 * (64 + 8) * 4);
}

TEST(Vla, PenaltyInverseStaysSymmetricPositiveDefinite) {
  constexpr Index d = 24;
  constexpr Index tokens = 500;
  const MixerConfig config{.options = VlaOptions{}};
  const auto tensors = random_tensors(config, {1, tokens, 1, d}, 22);
  const auto row = [&](const std::vector<double>& values, Index t) {
    return std::vector<float>(values.begin() + t * d, values.begin() + (t + 1) * d);
  };
  const auto memory = testing::production_core<float>(config, d)->memory();
  std::vector<float> o(d);
  for (Index t = 0; t < tokens; ++t) {
    const auto q = row(tensors.q, t), k = row(tensors.k, t), v = row(tensors.v, t);
    const auto direction = row(tensors.more[0], t);
    memory->step({q.data(), k.data(), v.data(), {direction.data()}}, o.data());
    if (t % 16 != 0) continue;
    const std::vector<double> values = as_penalty_memory(*memory)->penalty_matrix();
    const Eigen::Map<const Eigen::Matrix<double, d, d>> penalty(values.data());
    ASSERT_EQ((penalty - penalty.transpose()).cwiseAbs().maxCoeff(), 0.0) << "token " << t;
    const Eigen::LLT<Eigen::MatrixXd> factor(penalty);
    ASSERT_EQ(factor.info(), Eigen::Success) << "not positive definite after token " << t;
  }
}

// With u = k, raw write and no nudge, S_n solves min |V - S K|^2 + lambda_0 |S|^2:
// S = V K^T (K K^T + lambda_0 I)^-1. The recurrence and the solve differ by rounding that the
// condition number of the normal matrix (below 1e4 here) magnifies.
TEST(Vla, RawWriteAlongTheKeyIsRecursiveLeastSquares) {
  constexpr Index d = 12;
  constexpr Index n = 9;
  MixerConfig config{.options = VlaOptions{}};
  config.get<VlaOptions>().penalty = Penalty::key;
  config.get<VlaOptions>().u_scale = 1.0;
  config.get<VlaOptions>().write = WriteDirection::raw;
  config.get<VlaOptions>().period = 0;
  const auto core = testing::production_core<double>(config, d);
  const auto memory = core->memory();
  Rng rng(5, RngStream::benchmark, 0, 0);
  Eigen::MatrixXd keys = Eigen::MatrixXd::NullaryExpr(d, n, [&] { return rng.normal(); });
  const Eigen::MatrixXd values = Eigen::MatrixXd::NullaryExpr(d, n, [&] { return rng.normal(); });
  keys.colwise().normalize();
  for (Index t = 0; t < n; ++t) memory->write(keys.col(t).data(), values.col(t).data());
  const Eigen::MatrixXd normal =
      keys * keys.transpose() + config.get<VlaOptions>().lambda_0 * Eigen::MatrixXd::Identity(d, d);
  const Eigen::MatrixXd solution = normal.ldlt().solve(keys * values.transpose()).transpose();
  for (Index t = 0; t < n; ++t) {
    Eigen::VectorXd read(d);
    memory->read(keys.col(t).data(), read.data());
    EXPECT_LT((read - solution * keys.col(t)).norm(), 1e-11) << "key " << t;
  }
}

TEST(Vla, FrozenPenaltyIsADeltaRule) {
  MixerConfig config{.options = VlaOptions{}};
  config.get<VlaOptions>().penalty = Penalty::frozen;
  constexpr Index d = 8;
  const auto memory = testing::production_core<double>(config, d)->memory();
  Rng rng(6, RngStream::benchmark, 0, 0);
  Eigen::MatrixXd state = Eigen::MatrixXd::Zero(d, d);
  for (Index t = 0; t < 30; ++t) {
    Eigen::VectorXd key = Eigen::VectorXd::NullaryExpr(d, [&] { return rng.normal(); });
    const Eigen::VectorXd value = Eigen::VectorXd::NullaryExpr(d, [&] { return rng.normal(); });
    key.normalize();
    state += (value - state * key) * key.transpose();
    memory->write(key.data(), value.data());
    Eigen::VectorXd read(d);
    memory->read(key.data(), read.data());
    EXPECT_LT((read - state * key).norm(), 1e-13);
    EXPECT_NEAR(memory->state_norm(), state.norm(), 1e-12);
  }
}

// MATHS of Proposition 2: with the tied residual S_t = S_{t-1} (I - a a^T) + v a^T, so J is an
// orthogonal projection; with the key residual k and a are unit vectors that differ.
TEST(Vla, JacobianFactors) {
  constexpr Index d = 16;
  for (Residual residual : {Residual::key, Residual::write}) {
    MixerConfig config{.options = VlaOptions{}};
    config.get<VlaOptions>().residual = residual;
    const auto memory = testing::production_core<double>(config, d)->memory();
    const auto tensors = random_tensors(config, {1, 40, 1, d}, 23);
    std::vector<double> o(d);
    double least_cosine = 1.0;
    for (Index t = 0; t < 40; ++t) {
      const Index at = t * d;
      memory->step({tensors.q.data() + at,
                    tensors.k.data() + at,
                    tensors.v.data() + at,
                    {tensors.more[0].data() + at}},
                   o.data());
      const StepJacobian jacobian = memory->jacobian().value();
      const Eigen::Map<const Eigen::VectorXd> k(jacobian.k.data(), d);
      const Eigen::Map<const Eigen::VectorXd> a(jacobian.a.data(), d);
      EXPECT_NEAR(k.norm(), 1.0, 1e-14);
      EXPECT_NEAR(a.norm(), 1.0, 1e-14);
      least_cosine = std::min(least_cosine, k.dot(a));
    }
    if (residual == Residual::write) {
      EXPECT_NEAR(least_cosine, 1.0, 1e-14);
    } else {
      EXPECT_LT(least_cosine, 0.999);
    }
  }
}

}  // namespace
}  // namespace vla_bench
