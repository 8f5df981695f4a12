#include "mixers/vla/vla.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <ostream>
#include <string>
#include <vector>

#include "mixers/vla/vla_core.h"
#include "testing/mixer_cases.h"

namespace vla_bench {
namespace {

using testing::CoreTensors;
using testing::expect_contract;
using testing::expect_matches_reference;
using testing::random_tensors;

struct Variant {
  std::string name;
  MixerConfig config;
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

std::vector<Variant> variants() {
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
  };
}

class VlaVariant : public ::testing::TestWithParam<Variant> {};

TEST_P(VlaVariant, MeetsTheContractOfAMixer) { expect_contract(GetParam().config); }

INSTANTIATE_TEST_SUITE_P(All, VlaVariant, ::testing::ValuesIn(variants()),
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
      for (auto* vectors : {&tensors.k, &tensors.aux}) {
        for (Index t : {0, 7, 19}) {
          for (Index i = t * 16; i < (t + 1) * 16 && !vectors->empty(); ++i) {
            double& value = (*vectors)[static_cast<std::size_t>(i)];
            value = static_cast<float>(shrink * value);
          }
        }
      }
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
  namespace vla = mixers::vla;
  constexpr Index d = 24;
  constexpr Index tokens = 500;
  const MixerConfig config{.options = VlaOptions{}};
  const vla::Settings<float> settings(config.get<VlaOptions>(), d);
  vla::Workspace<float> workspace(settings);
  const vla::LaneState<float> state(settings, workspace.state);
  vla::reset(settings, state);
  const auto tensors = random_tensors(config, {1, tokens, 1, d}, 22);
  const std::vector<float> q(tensors.q.begin(), tensors.q.end());
  const std::vector<float> k(tensors.k.begin(), tensors.k.end());
  const std::vector<float> v(tensors.v.begin(), tensors.v.end());
  const std::vector<float> aux(tensors.aux.begin(), tensors.aux.end());
  std::vector<float> o(static_cast<std::size_t>(vla::kSegment * d));
  for (Index first = 0; first + vla::kSegment <= tokens; first += vla::kSegment) {
    const Index at = first * d;
    const vla::LaneInputs<float> inputs{
        q.data() + at, k.data() + at, v.data() + at, aux.data() + at, d, d, d, d};
    vla::compute_features(settings, inputs, vla::kSegment, workspace.features);
    vla::advance(settings, state, workspace.features, inputs.v, d, first, vla::kSegment,
                 workspace.trace, o.data(), d, workspace.work);
    using Matrix = Eigen::Matrix<float, d, d, Eigen::RowMajor>;
    const Eigen::Map<const Matrix, 0, Eigen::OuterStride<>> penalty(
        state.a, Eigen::OuterStride<>(settings.stride));
    ASSERT_EQ((penalty - penalty.transpose()).cwiseAbs().maxCoeff(), 0.0f) << "token " << first;
    const Eigen::LLT<Eigen::MatrixXd> factor(penalty.cast<double>());
    ASSERT_EQ(factor.info(), Eigen::Success) << "not positive definite after token " << first;
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
  for (Index t = 0; t < n; ++t) memory->write(keys.col(t).data(), values.col(t).data(), nullptr);
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
    memory->write(key.data(), value.data(), nullptr);
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
      memory->step(tensors.q.data() + at, tensors.k.data() + at, tensors.v.data() + at,
                   tensors.aux.data() + at, o.data());
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
