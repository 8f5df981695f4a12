// Elementwise operations, embeddings and the optimiser against plain double loops.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/device.h"
#include "core/error.h"
#include "ops/cpu/vector_math.h"
#include "testing/operands.h"

namespace vla_bench::ops {
namespace {

using vla_bench::testing::central_differences;
using vla_bench::testing::expect_same_on_any_threads;
using vla_bench::testing::kDifferenceTolerance;
using vla_bench::testing::kEpsilon;
using vla_bench::testing::near;
using vla_bench::testing::random_values;
using vla_bench::testing::Strided;
using vla_bench::testing::to_double;

constexpr Index kCounts[] = {1, 3, 257, 5000};  // 5000: several blocks and a remainder

/// Distance to `expected` in units of the last place of its nearest float.
double ulps(float actual, double expected) {
  const float nearest = static_cast<float>(expected);
  if (std::isinf(nearest)) return actual == nearest ? 0.0 : 1e9;
  const float above = std::nextafter(std::fabs(nearest), std::numeric_limits<float>::infinity());
  const double unit = std::isinf(above) ? 0x1p104 : static_cast<double>(above) - std::fabs(nearest);
  return std::abs(static_cast<double>(actual) - expected) / unit;
}

TEST(VectorMath, ExpIsWithinTwoUlpOfExact) {
  double worst = 0.0;
  // Past both ends of the range of results, subnormal ones included.
  for (double x = -110.0; x < 95.0; x += 0.00037) {
    const float argument = static_cast<float>(x);
    worst = std::max(worst, ulps(cpu::exp(argument), std::exp(static_cast<double>(argument))));
  }
  EXPECT_LE(worst, 1.5);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(cpu::exp(0.0f), 1.0f);
  EXPECT_EQ(cpu::exp(-infinity), 0.0f);
  EXPECT_EQ(cpu::exp(infinity), infinity);
  EXPECT_TRUE(std::isnan(cpu::exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(VectorMath, ErfIsWithinTwoUlpOfExact) {
  double worst = 0.0;
  for (double x = -6.0; x < 6.0; x += 0.00003) {
    const float argument = static_cast<float>(x);
    worst = std::max(worst, ulps(cpu::erf(argument), std::erf(static_cast<double>(argument))));
  }
  for (float x = 1e-38f; x < 1.0f; x *= 1.01f) {
    worst = std::max(worst, ulps(cpu::erf(x), std::erf(static_cast<double>(x))));
  }
  EXPECT_LE(worst, 2.0);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(cpu::erf(infinity), 1.0f);
  EXPECT_EQ(cpu::erf(-infinity), -1.0f);
  EXPECT_EQ(cpu::erf(0.0f), 0.0f);
  EXPECT_TRUE(std::isnan(cpu::erf(std::numeric_limits<float>::quiet_NaN())));
}

double plain_gelu(double x) { return x * 0.5 * (1.0 + std::erf(x / std::sqrt(2.0))); }

template <class T>
void check_gelu(Index count) {
  const auto x = random_values<T>(count, 1, 3.0);
  const auto dy = random_values<T>(count, 2);
  const auto forward = [&](const Context& context) {
    std::vector<T> y(x.size());
    gelu_forward<T>(context, x.data(), y.data(), count);
    return y;
  };
  const auto backward = [&](const Context& context) {
    std::vector<T> dx = dy;  // in place
    gelu_backward<T>(context, x.data(), dx.data(), dx.data(), count);
    return dx;
  };
  std::vector<double> y, dx;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double value = x[i];
    const double density = std::exp(-value * value / 2) / std::sqrt(2 * 3.14159265358979323846);
    y.push_back(plain_gelu(value));
    dx.push_back(dy[i] * (0.5 * (1 + std::erf(value / std::sqrt(2.0))) + value * density));
  }
  // 1 + erf is off by 2 eps absolutely, x and dy multiply it.
  EXPECT_TRUE(near("y", forward({}), y, 8 * kEpsilon<T>));
  EXPECT_TRUE(near("dx", backward({}), dx, 8 * kEpsilon<T>));
  expect_same_on_any_threads(forward);
  expect_same_on_any_threads(backward);
}

TEST(Gelu, EqualsPlainLoops) {
  for (Index count : kCounts) {
    check_gelu<float>(count);
    check_gelu<double>(count);
  }
}

TEST(Gelu, BackwardIsTheDerivative) {
  std::vector<double> x = random_values<double>(40, 1, 2.0);
  const std::vector<double> ones(x.size(), 1.0);
  std::vector<double> dx(x.size());
  gelu_backward<double>({}, x.data(), ones.data(), dx.data(), 40);
  const auto expected = central_differences(x, [&] {
    return std::accumulate(x.begin(), x.end(), 0.0,
                           [](double sum, double value) { return sum + plain_gelu(value); });
  });
  EXPECT_TRUE(near("dx", dx, expected, kDifferenceTolerance));
}

// y = residual + x + value gate; dvalue = dy gate, dgate = dy value.
template <class T>
void check_gated_sum(Index count) {
  const auto value = random_values<T>(count, 1);
  const auto gate = random_values<T>(count, 2);
  const auto x = random_values<T>(count, 3);
  const auto residual = random_values<T>(count, 4);
  const auto dy = random_values<T>(count, 5);
  const auto run = [&](const Context& context) {
    std::vector<T> all(3 * value.size());  // y, dvalue, dgate
    gated_sum_forward<T>(context, {.value = value.data(),
                                   .gate = gate.data(),
                                   .x = x.data(),
                                   .residual = residual.data(),
                                   .y = all.data(),
                                   .count = count});
    gated_sum_backward<T>(context, {.value = value.data(),
                                    .gate = gate.data(),
                                    .dy = dy.data(),
                                    .dvalue = all.data() + count,
                                    .dgate = all.data() + 2 * count,
                                    .count = count});
    return all;
  };
  std::vector<double> expected(3 * value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    const auto number = [&](const std::vector<T>& values) {
      return static_cast<double>(values[i]);
    };
    expected[i] = number(residual) + number(x) + number(value) * number(gate);
    expected[value.size() + i] = number(dy) * number(gate);
    expected[2 * value.size() + i] = number(dy) * number(value);
  }
  EXPECT_TRUE(near("y, dvalue, dgate", run({}), expected, 4 * kEpsilon<T>));
  expect_same_on_any_threads(run);
}

TEST(GatedSum, EqualsPlainLoops) {
  for (Index count : kCounts) {
    check_gated_sum<float>(count);
    check_gated_sum<double>(count);
  }
}

TEST(Flat, FillZero) {
  for (Index count : kCounts) {
    auto values = random_values<float>(count, 1);
    fill_zero<float>({.threads = 2}, values.data(), count);
    EXPECT_EQ(values, std::vector<float>(static_cast<std::size_t>(count), 0.0f));
  }
}

template <class T>
void check_embedding(Index D, bool positions) {
  constexpr Index B = 3, L = 5, V = 7;
  std::vector<std::int32_t> tokens;
  Rng rng(7, RngStream::benchmark, 9, 0);
  for (Index i = 0; i < B * L; ++i) tokens.push_back(static_cast<std::int32_t>(rng.below(V)));
  const auto token_table = random_values<T>(V * D, 1);
  const auto position_table = random_values<T>((L + 2) * D, 2);
  const auto dh = random_values<T>(B * L * D, 3);

  std::vector<double> h, dtoken(V * D, 1.0), dposition((L + 2) * D, 2.0);
  for (Index i = 0; i < B * L; ++i) {
    for (Index j = 0; j < D; ++j) {
      const auto position = static_cast<double>(position_table[(i % L) * D + j]);
      const auto gradient = static_cast<double>(dh[i * D + j]);
      h.push_back(static_cast<double>(token_table[tokens[i] * D + j]) + (positions ? position : 0));
      dtoken[tokens[i] * D + j] += gradient;
      if (positions) dposition[(i % L) * D + j] += gradient;
    }
  }
  const Matrix<const T> table(position_table.data(), L + 2, D);
  const auto forward = [&](const Context& context) {
    Strided<T> out(B * L, D, 2);
    embedding_forward<T>(context, {.tokens = tokens.data(),
                                   .batch = B,
                                   .tokens_per_row = L,
                                   .token_table = {token_table.data(), V, D},
                                   .position_table = positions ? table : Matrix<const T>(),
                                   .h = out.view()});
    EXPECT_TRUE(out.gaps_untouched());
    return out.values();
  };
  const auto backward = [&](const Context& context) {
    Strided<T> upstream(B * L, D, 3, dh);
    std::vector<T> both(V * D, T(1));
    both.resize(both.size() + static_cast<std::size_t>((L + 2) * D), T(2));
    const Matrix<T> of_positions(both.data() + V * D, L + 2, D);
    embedding_backward<T>(context, {.tokens = tokens.data(),
                                    .batch = B,
                                    .tokens_per_row = L,
                                    .dh = upstream.view(),
                                    .dtoken_table = {both.data(), V, D},
                                    .dposition_table = positions ? of_positions : Matrix<T>()});
    return both;
  };
  std::vector<double> expected = dtoken;
  expected.insert(expected.end(), dposition.begin(), dposition.end());
  EXPECT_TRUE(near("h", forward({}), h, kEpsilon<T>));
  EXPECT_TRUE(near("gradients", backward({}), expected, (B * L + 1) * kEpsilon<T>));
  expect_same_on_any_threads(forward);
  expect_same_on_any_threads(backward);
}

TEST(Embedding, EqualsPlainLoops) {
  for (Index D : {1, 8, 33}) {
    for (bool positions : {true, false}) {
      check_embedding<float>(D, positions);
      check_embedding<double>(D, positions);
    }
  }
}

TEST(Rows, GatherAndScatter) {
  const std::int32_t rows[] = {4, 0, 3};
  Strided<float> in(5, 3, 1, random_values<float>(15, 1));
  Strided<float> gathered(3, 3, 2);
  gather_rows<float>({.threads = 2}, in.view(), rows, gathered.view());
  Strided<float> scattered(5, 3, 2, random_values<float>(15, 2));
  scatter_rows<float>({.threads = 2}, gathered.view(), rows, scattered.view());
  for (Index i = 0; i < 5; ++i) {
    const bool chosen = i == 4 || i == 0 || i == 3;
    for (Index j = 0; j < 3; ++j) {
      EXPECT_EQ(scattered.view().row(i)[j], chosen ? in.view().row(i)[j] : 0.0f);
    }
  }
  EXPECT_TRUE(gathered.gaps_untouched() && scattered.gaps_untouched());
}

constexpr Schedule kSchedule{.peak = 0.02, .warmup = 2, .steps = 6};
constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8, kDecay = 0.1;

template <class T>
OptimiserStep<T> optimiser_arguments(std::vector<T>& p, const std::vector<T>& g, std::vector<T>& m,
                                     std::vector<T>& v, double clip_norm, TrainingState& state) {
  return {.parameters = p.data(),
          .gradients = g.data(),
          .first_moment = m.data(),
          .second_moment = v.data(),
          .count = static_cast<Index>(p.size()),
          .schedule = kSchedule,
          .beta1 = kBeta1,
          .beta2 = kBeta2,
          .epsilon = kEps,
          .weight_decay = kDecay,
          .clip_norm = clip_norm,
          .state = &state};
}

template <class T>
void check_optimiser(Index count) {
  const auto gradients = random_values<T>(count, 1);
  const auto start = random_values<T>(count, 2);
  double squares = 0.0;
  for (double value : to_double(gradients)) squares += value * value;
  const double norm = std::sqrt(squares);
  const double clip_norm = 0.5 * norm;  // so that gradients are halved, but for torch's 1e-6
  const auto run = [&](const Context& context) {
    std::vector<T> p = start, m(start.size()), v(start.size());
    TrainingState state;
    for (Index step : {0, 1, 2}) {
      EXPECT_EQ(state.step, step);
      optimiser_step<T>(context, optimiser_arguments(p, gradients, m, v, clip_norm, state));
      EXPECT_EQ(state.learning_rate, learning_rate(kSchedule, step));
      EXPECT_NEAR(state.gradient_norm, norm, 1e-13 * norm);
    }
    EXPECT_EQ(state.diverged, 0);
    p.insert(p.end(), m.begin(), m.end());
    p.push_back(static_cast<T>(state.gradient_norm));
    return p;
  };
  std::vector<double> p = to_double(start), m(start.size()), v(start.size());
  for (int step : {1, 2, 3}) {
    const double lr = learning_rate(kSchedule, step - 1);
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double g = clip_norm / (norm + 1e-6) * static_cast<double>(gradients[i]);
      p[i] *= 1 - lr * kDecay;
      m[i] = kBeta1 * m[i] + (1 - kBeta1) * g;
      v[i] = kBeta2 * v[i] + (1 - kBeta2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(kBeta1, step));
      const double v_hat = v[i] / (1 - std::pow(kBeta2, step));
      p[i] -= lr * m_hat / (std::sqrt(v_hat) + kEps);
    }
  }
  p.insert(p.end(), m.begin(), m.end());
  p.push_back(norm);
  // Three updates of about ten roundings each, all relative to values of order one (the norm, which
  // is exact to a rounding, may be larger).
  EXPECT_TRUE(near("parameters", run({}), p, 30 * kEpsilon<T>));
  expect_same_on_any_threads(run);
}

TEST(Optimiser, EqualsPlainLoops) {
  for (Index count : kCounts) {
    check_optimiser<float>(count);
    check_optimiser<double>(count);
  }
}

TEST(Optimiser, StopsForGoodAtALossOrNormThatIsNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> p = {1, 2}, m(2), v(2);
  TrainingState state;
  const auto step = [&](const std::vector<float>& gradients, double loss) {
    state.loss.loss = loss;
    optimiser_step<float>({}, optimiser_arguments(p, gradients, m, v, 1.0, state));
  };
  step({1, 1}, 0.5);
  step({1, 1}, 0.5);
  const std::vector<float> before = p;
  EXPECT_EQ(state.step, 2);
  TrainingState good = state;
  step({1, 1}, HUGE_VAL);
  EXPECT_EQ(state.diverged, 1);
  step({1, 1}, 0.5);
  EXPECT_EQ(state.step, 2);
  state = good;
  step({1, nan}, 0.5);
  EXPECT_EQ(state.diverged, 1);
  EXPECT_TRUE(std::isnan(state.gradient_norm));
  EXPECT_EQ(state.step, 2);
  EXPECT_EQ(p, before);
}

TEST(Dispatch, MissingDeviceOperationIsNamed) {
  if (cuda_status().built) GTEST_SKIP() << "this build has CUDA operations";
  float value = 0.0f;
  try {
    fill_zero<float>({.device = Device::cuda}, &value, 1);
    FAIL() << "no error";
  } catch (const RunError& error) {
    EXPECT_NE(std::strstr(error.what(), "fill_zero"), nullptr) << error.what();
  }
}

}  // namespace
}  // namespace vla_bench::ops
