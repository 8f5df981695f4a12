// LayerNorm and RMSNorm against plain double loops and central differences.
#include <numeric>

#include "testing/operands.h"

namespace vla_bench::ops {
namespace {

using vla_bench::testing::central_differences;
using vla_bench::testing::kDifferenceTolerance;
using vla_bench::testing::kEpsilon;
using vla_bench::testing::near;
using vla_bench::testing::random_values;
using vla_bench::testing::Strided;

struct NormCase {
  Index M, D;
  std::vector<double> x, weight, bias, dy;
};
NormCase norm_case(Index M, Index D) {
  NormCase c{M,
             D,
             random_values<double>(M * D, 1),
             random_values<double>(D, 2),
             random_values<double>(D, 3),
             random_values<double>(M * D, 4)};
  for (double& value : c.x) value += 3.0;  // a mean that has to be removed
  return c;
}

std::vector<double> plain_layer_norm(const NormCase& c) {
  std::vector<double> y;
  for (Index i = 0; i < c.M; ++i) {
    const double* x = c.x.data() + i * c.D;
    const double mean = std::accumulate(x, x + c.D, 0.0) / static_cast<double>(c.D);
    double variance = 0.0;
    for (Index j = 0; j < c.D; ++j) variance += (x[j] - mean) * (x[j] - mean);
    variance /= static_cast<double>(c.D);
    for (Index j = 0; j < c.D; ++j) {
      y.push_back((x[j] - mean) / std::sqrt(variance + 1e-5) * c.weight[j] + c.bias[j]);
    }
  }
  return y;
}

template <class T>
struct NormResult {
  std::vector<T> y, dx, dweight, dbias{};  // no bias: RMSNorm
  bool operator==(const NormResult&) const = default;
};
/// The double losses' gradients in c, on top of what the buffers of dweight and dbias held before.
template <class Plain>
NormResult<double> differences_of(NormCase& c, const Plain& plain) {
  const auto loss = [&] {
    const auto y = plain(c);
    return std::inner_product(y.begin(), y.end(), c.dy.begin(), 0.0);
  };
  NormResult<double> expected{plain(c), central_differences(c.x, loss),
                              central_differences(c.weight, loss),
                              central_differences(c.bias, loss)};
  for (double& value : expected.dweight) value += 2.0;
  for (double& value : expected.dbias) value += 3.0;
  return expected;
}
void expect_near(const NormResult<double>& got, const NormResult<double>& expected, Index D) {
  // Sums of D terms and a division: a few D eps.
  EXPECT_TRUE(near("y", got.y, expected.y, 4.0 * static_cast<double>(D) * kEpsilon<double>));
  EXPECT_TRUE(near("dx", got.dx, expected.dx, kDifferenceTolerance));
  EXPECT_TRUE(near("dweight", got.dweight, expected.dweight, kDifferenceTolerance));
}
/// run<T>(case, context) in both precisions.
template <class Run>
void expect_float_follows_double(const Run& run) {
  for (const auto& [M, D] : {std::pair<Index, Index>{1, 16}, {257, 130}}) {
    const NormCase c = norm_case(M, D);
    const NormResult<float> single = run.template operator()<float>(c, Context{});
    const NormResult<double> twice = run.template operator()<double>(c, Context{});
    // Inputs near 3: an absolute error of 3 eps is one relative to values of order 1, and sums over
    // up to 257 rows add theirs.
    const double tolerance = 300 * kEpsilon<float>;
    EXPECT_TRUE(near("y", single.y, twice.y, tolerance));
    EXPECT_TRUE(near("dx", single.dx, twice.dx, tolerance));
    EXPECT_TRUE(near("dweight", single.dweight, twice.dweight, tolerance));
    EXPECT_TRUE(near("dbias", single.dbias, twice.dbias, tolerance));
    for (int threads : {2, 3}) {
      EXPECT_TRUE(single == run.template operator()<float>(c, Context{.threads = threads}));
      EXPECT_TRUE(twice == run.template operator()<double>(c, Context{.threads = threads}));
    }
  }
}

template <class T>
NormResult<T> run_layer_norm(const NormCase& c, const Context& context, bool residual) {
  const auto round = [](const std::vector<double>& v) {
    return std::vector<T>(v.begin(), v.end());
  };
  Strided<T> x(c.M, c.D, 5, round(c.x));
  Strided<T> dy(c.M, c.D, 1, round(c.dy));
  const auto weight = round(c.weight);
  const auto bias = round(c.bias);
  Strided<T> y(c.M, c.D, 2);
  Strided<T> dx(c.M, c.D, 3, std::vector<T>(c.x.size(), T(1)));
  std::vector<T> mean(c.M), inverse_std(c.M), dweight(c.D, T(2)), dbias(c.D, T(3));
  layer_norm_forward<T>(context, {.x = x.view(),
                                  .weight = weight.data(),
                                  .bias = bias.data(),
                                  .residual = residual ? x.view() : Matrix<const T>(),
                                  .y = y.view(),
                                  .mean = mean.data(),
                                  .inverse_std = inverse_std.data()});
  layer_norm_backward<T>(context, {.x = x.view(),
                                   .weight = weight.data(),
                                   .mean = mean.data(),
                                   .inverse_std = inverse_std.data(),
                                   .dy = dy.view(),
                                   .residual = residual ? dx.view() : Matrix<const T>(),
                                   .dx = dx.view(),
                                   .dweight = dweight.data(),
                                   .dbias = dbias.data()});
  EXPECT_TRUE(y.gaps_untouched() && dx.gaps_untouched());
  return {y.values(), dx.values(), dweight, dbias};
}

TEST(LayerNorm, EqualsPlainLoopsAndDifferences) {
  for (const auto& [M, D] : {std::pair<Index, Index>{1, 5}, {3, 33}}) {
    NormCase c = norm_case(M, D);
    const NormResult<double> expected = differences_of(c, plain_layer_norm);
    const auto got = run_layer_norm<double>(c, {}, false);
    expect_near(got, expected, D);
    EXPECT_TRUE(near("dbias", got.dbias, expected.dbias, kDifferenceTolerance));
    auto sums = run_layer_norm<double>(c, {}, true);
    for (double& value : sums.dx) value -= 1.0;
    EXPECT_TRUE(near("dx accumulated", sums.dx, expected.dx, kDifferenceTolerance));
    for (std::size_t i = 0; i < c.x.size(); ++i) sums.y[i] -= c.x[i];
    EXPECT_TRUE(near("y on top of x", sums.y, expected.y,
                     16.0 * static_cast<double>(D) * kEpsilon<double>));
  }
}

TEST(LayerNorm, FloatFollowsDoubleOnAnyThreads) {
  expect_float_follows_double([]<class T>(const NormCase& c, const Context& context) {
    return run_layer_norm<T>(c, context, false);
  });
}

constexpr double kRmsTestEpsilon = 0.5;  // large enough to count

std::vector<double> plain_rms_norm(const NormCase& c) {
  std::vector<double> y;
  for (Index i = 0; i < c.M; ++i) {
    const double* x = c.x.data() + i * c.D;
    double squares = 0.0;
    for (Index j = 0; j < c.D; ++j) squares += x[j] * x[j];
    for (Index j = 0; j < c.D; ++j) {
      const double mean = squares / static_cast<double>(c.D);
      y.push_back(x[j] / std::sqrt(mean + kRmsTestEpsilon) * c.weight[j]);
    }
  }
  return y;
}

template <class T>
NormResult<T> run_rms_norm(const NormCase& c, const Context& context) {
  const auto round = [](const std::vector<double>& v) {
    return std::vector<T>(v.begin(), v.end());
  };
  Strided<T> x(c.M, c.D, 5, round(c.x));
  Strided<T> dy(c.M, c.D, 1, round(c.dy));
  const auto weight = round(c.weight);
  Strided<T> y(c.M, c.D, 2);
  Strided<T> dx(c.M, c.D, 3);
  std::vector<T> inverse_rms(c.M), dweight(c.D, T(2));
  rms_norm_forward<T>(context, {.x = x.view(),
                                .weight = weight.data(),
                                .epsilon = kRmsTestEpsilon,
                                .y = y.view(),
                                .inverse_rms = inverse_rms.data()});
  rms_norm_backward<T>(context, {.x = x.view(),
                                 .weight = weight.data(),
                                 .inverse_rms = inverse_rms.data(),
                                 .dy = dy.view(),
                                 .dx = dx.view(),
                                 .dweight = dweight.data()});
  EXPECT_TRUE(y.gaps_untouched() && dx.gaps_untouched());
  return {y.values(), dx.values(), dweight};
}

TEST(RmsNorm, EqualsPlainLoopsAndDifferences) {
  for (const auto& [M, D] : {std::pair<Index, Index>{1, 5}, {3, 33}, {70, 8}}) {
    NormCase c = norm_case(M, D);
    const NormResult<double> expected = differences_of(c, plain_rms_norm);
    expect_near(run_rms_norm<double>(c, {}), expected, D);
  }
}

TEST(RmsNorm, FloatFollowsDoubleOnAnyThreads) {
  expect_float_follows_double([]<class T>(const NormCase& c, const Context& context) {
    return run_rms_norm<T>(c, context);
  });
}

}  // namespace
}  // namespace vla_bench::ops
