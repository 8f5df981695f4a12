#include "mixers/vla/kalman.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>

#include "mixers/penalty_memory.h"
#include "testing/mixer_cases.h"

namespace vla_bench::testing {
namespace {

MixerConfig kalman(double lambda_0, double rho) {
  return {.options = KalmanOptions{.lambda_0 = lambda_0, .rho = rho}};
}

TEST(Kalman, MeetsTheContract) { expect_contract({.options = KalmanOptions{}}); }

TEST(Kalman, MeetsTheContractWithADriftThatMatters) { expect_contract(kalman(0.5, 0.05)); }

/// VLA as recursive least squares.
MixerConfig least_squares(double lambda_0) {
  return {.options = VlaOptions{.feature_map = FeatureMap::silu,
                                .penalty = Penalty::key,
                                .u_scale = 1.0,
                                .write = WriteDirection::raw,
                                .lambda_0 = lambda_0,
                                .period = 0,
                                .normaliser = Normaliser::none}};
}

// VLA's queries keep their length: where the upstream gradient is divided by it, outputs times it
// are equal, and so are the gradients of k and v.
TEST(Kalman, IsRecursiveLeastSquaresWithoutDrift) {
  const HeadDims dims{.batch = 2, .tokens = 45, .heads = 3, .d_h = 16};
  CoreTensors tensors = random_tensors(kalman(0.5, 0.0), dims, 81);
  CoreTensors with_lengths = tensors;
  std::vector<double> lengths;
  for (std::size_t i = 0; i < tensors.q.size(); i += 16) {
    double squares = 0.0;
    for (std::size_t j = i; j < i + 16; ++j) {
      squares += std::pow(tensors.q[j] / (1 + std::exp(-tensors.q[j])), 2);
    }
    lengths.insert(lengths.end(), 16, std::sqrt(squares));
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) with_lengths.d_o[i] /= lengths[i];
  const CoreRun expected = run_core<double>(*reference_core(least_squares(0.5), 16), with_lengths);
  for (const auto& core :
       {production_core<double>(kalman(0.5, 0.0), 16), reference_core(kalman(0.5, 0.0), 16)}) {
    CoreRun run = run_core<double>(*core, tensors);
    for (std::size_t i = 0; i < lengths.size(); ++i) run.o[i] *= lengths[i];
    run.dq = expected.dq;
    expect_same_run(run, expected, rounding_tolerance<double>(dims), describe(dims));
  }
}

// The steps of kalman.h as they stand there.
TEST(Kalman, WritesWithTheGainOfTheFilter) {
  constexpr Index d = 8;
  const double rho = 0.05, lambda_0 = 0.3;
  const auto memory = production_core<double>(kalman(lambda_0, rho), d)->memory();
  Rng rng(7, RngStream::benchmark, 0, 0);
  Eigen::MatrixXd S = Eigen::MatrixXd::Zero(d, d);
  Eigen::MatrixXd P = Eigen::MatrixXd::Identity(d, d) / lambda_0;
  for (Index t = 0; t < 30; ++t) {
    Eigen::VectorXd k = Eigen::VectorXd::NullaryExpr(d, [&] { return rng.normal(); });
    const Eigen::VectorXd v = Eigen::VectorXd::NullaryExpr(d, [&] { return rng.normal(); });
    k.normalize();
    P += rho * Eigen::MatrixXd::Identity(d, d);
    const Eigen::VectorXd along = P * k;
    const Eigen::VectorXd gain = along / (1.0 + k.dot(along));
    S += (v - S * k) * gain.transpose();
    P -= gain * along.transpose();

    memory->write(k.data(), v.data());
    Eigen::VectorXd read(d);
    memory->read(k.data(), read.data());
    EXPECT_LT((read - S * k).norm(), 1e-12) << "token " << t;
    EXPECT_NEAR(memory->state_norm(), S.norm(), 1e-12);
    const StepJacobian jacobian = memory->jacobian().value();
    EXPECT_LT((Eigen::Map<const Eigen::VectorXd>(jacobian.a.data(), d) - gain).norm(), 1e-12);
    EXPECT_NEAR(as_penalty_memory(*memory)->penalty_norm(),
                (P + rho * Eigen::MatrixXd::Identity(d, d)).norm(), 1e-12);
  }
}

TEST(Kalman, HasVlasImplementationsButNotItsSequentialOne) {
  const auto support = [](Implementation implementation) {
    return mixer_support({.options = KalmanOptions{}}, 16, Device::cpu, implementation);
  };
  EXPECT_TRUE(support(Implementation::recurrent).ok);
  EXPECT_EQ(support(Implementation::sequential).reason, "sequential is vla");
  const HeadDims dims{.batch = 3, .tokens = 50, .heads = 2, .d_h = 8};
  EXPECT_EQ(production_core<float>({.options = KalmanOptions{}}, 8)->state_bytes(dims),
            6 * (64 + 64) * 4);
}

}  // namespace
}  // namespace vla_bench::testing
