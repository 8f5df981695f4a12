// Affine maps and the short convolution against plain double loops and central differences.
#include <algorithm>
#include <array>
#include <numeric>

#include "testing/operands.h"

namespace vla_bench::ops {
namespace {

using vla_bench::testing::central_differences;
using vla_bench::testing::expect_same_on_any_threads;
using vla_bench::testing::kDifferenceTolerance;
using vla_bench::testing::kEpsilon;
using vla_bench::testing::largest;
using vla_bench::testing::near;
using vla_bench::testing::random_values;
using vla_bench::testing::Strided;
using vla_bench::testing::to_double;

struct Size {
  Index M, N, K;
};
// One row, fewer rows than a block, several blocks; widths on and off multiples of the vector.
const Size kSizes[] = {{1, 1, 1}, {1, 48, 33}, {3, 17, 5}, {257, 130, 31}, {700, 16, 64}};

std::vector<double> magnitudes(std::vector<double> values) {
  for (double& value : values) value = std::abs(value);
  return values;
}

// The plain loops. Each is also run on magnitudes: a sum of n terms in any order is off by at most
// n eps times the sum of magnitudes (Higham, Accuracy and Stability, section 4.2).
std::vector<double> plain_forward(Size s, const std::vector<double>& x,
                                  const std::vector<double>& w, const std::vector<double>& bias) {
  std::vector<double> y(s.M * s.N);
  for (Index i = 0; i < s.M; ++i) {
    for (Index n = 0; n < s.N; ++n) {
      double sum = bias[n];
      for (Index k = 0; k < s.K; ++k) sum += x[i * s.K + k] * w[n * s.K + k];
      y[i * s.N + n] = sum;
    }
  }
  return y;
}
struct PlainGradients {
  std::vector<double> dx, dw, db;
};
/// The gradients are added to `start`, as the operation accumulates.
PlainGradients plain_backward(Size s, const std::vector<double>& x, const std::vector<double>& w,
                              const std::vector<double>& dy, PlainGradients start) {
  for (Index i = 0; i < s.M; ++i) {
    for (Index n = 0; n < s.N; ++n) {
      for (Index k = 0; k < s.K; ++k) {
        start.dx[i * s.K + k] += dy[i * s.N + n] * w[n * s.K + k];
        start.dw[n * s.K + k] += dy[i * s.N + n] * x[i * s.K + k];
      }
      start.db[n] += dy[i * s.N + n];
    }
  }
  return start;
}

enum class ResidualAt { none, elsewhere, y };

template <class T>
void check_linear_forward(Size s, ResidualAt residual_at) {
  SCOPED_TRACE(::testing::Message() << "M " << s.M << " N " << s.N << " K " << s.K);
  const auto x = random_values<T>(s.M * s.K, 1);
  const auto w = random_values<T>(s.N * s.K, 2);
  const auto bias = random_values<T>(s.N, 3);
  Strided<T> x_view(s.M, s.K, 3, x);
  Strided<T> w_view(s.N, s.K, 1, w);
  const auto residual = random_values<T>(s.M * s.N, 4);
  Strided<T> residual_view(s.M, s.N, 1, residual);
  const auto run = [&](const Context& context) {
    const bool in_y = residual_at == ResidualAt::y;
    Strided<T> y(s.M, s.N, 2, in_y ? residual : std::vector<T>(residual.size(), T(7)));
    Matrix<const T> added;
    if (in_y) added = y.view();
    if (residual_at == ResidualAt::elsewhere) added = residual_view.view();
    linear_forward<T>(context, {.x = x_view.view(),
                                .weight = w_view.view(),
                                .bias = bias.data(),
                                .residual = added,
                                .y = y.view()});
    EXPECT_TRUE(y.gaps_untouched());
    return y.values();
  };
  auto expected = plain_forward(s, to_double(x), to_double(w), to_double(bias));
  auto sums = plain_forward(s, magnitudes(to_double(x)), magnitudes(to_double(w)),
                            magnitudes(to_double(bias)));
  if (residual_at != ResidualAt::none) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] += static_cast<double>(residual[i]);
      sums[i] += std::abs(static_cast<double>(residual[i]));
    }
  }
  const double tolerance =
      static_cast<double>(s.K + 2) * kEpsilon<T> * largest(sums) / largest(expected);
  EXPECT_TRUE(near("y", run({}), expected, tolerance));
  expect_same_on_any_threads(run);
}

template <class T>
void check_linear_backward(Size s, bool accumulate_dx) {
  SCOPED_TRACE(::testing::Message() << "M " << s.M << " N " << s.N << " K " << s.K);
  const auto x = random_values<T>(s.M * s.K, 1);
  const auto w = random_values<T>(s.N * s.K, 2);
  const auto dy = random_values<T>(s.M * s.N, 3);
  const auto dx_start = random_values<T>(s.M * s.K, 4);
  const auto dw_start = random_values<T>(s.N * s.K, 5);
  const auto db_start = random_values<T>(s.N, 6);
  Strided<T> x_view(s.M, s.K, 3, x);
  Strided<T> w_view(s.N, s.K, 1, w);
  Strided<T> dy_view(s.M, s.N, 2, dy);
  struct Result {
    std::vector<T> dx, dw, db;
    bool operator==(const Result&) const = default;
  };
  const auto run = [&](const Context& context) {
    Strided<T> dx(s.M, s.K, 4, dx_start);
    Strided<T> dw(s.N, s.K, 1, dw_start);
    std::vector<T> db = db_start;
    linear_backward<T>(context, {.x = x_view.view(),
                                 .weight = w_view.view(),
                                 .dy = dy_view.view(),
                                 .dx = dx.view(),
                                 .accumulate_dx = accumulate_dx,
                                 .dweight = dw.view(),
                                 .dbias = db.data()});
    EXPECT_TRUE(dx.gaps_untouched() && dw.gaps_untouched());
    return Result{dx.values(), dw.values(), db};
  };
  const auto start_dx =
      accumulate_dx ? to_double(dx_start) : std::vector<double>(dx_start.size(), 0.0);
  const PlainGradients expected =
      plain_backward(s, to_double(x), to_double(w), to_double(dy),
                     {start_dx, to_double(dw_start), to_double(db_start)});
  const PlainGradients sums = plain_backward(
      s, magnitudes(to_double(x)), magnitudes(to_double(w)), magnitudes(to_double(dy)),
      {magnitudes(start_dx), magnitudes(to_double(dw_start)), magnitudes(to_double(db_start))});
  const auto tolerance = [](Index terms, const auto& sum, const auto& value) {
    return static_cast<double>(terms + 1) * kEpsilon<T> * largest(sum) / largest(value);
  };
  const Result got = run({});
  EXPECT_TRUE(near("dx", got.dx, expected.dx, tolerance(s.N, sums.dx, expected.dx)));
  EXPECT_TRUE(near("dw", got.dw, expected.dw, tolerance(s.M, sums.dw, expected.dw)));
  EXPECT_TRUE(near("db", got.db, expected.db, tolerance(s.M, sums.db, expected.db)));
  const Result two = run({.threads = 2});
  const Result three = run({.threads = 3});
  EXPECT_TRUE(got == two && got == three);
}

TEST(Linear, ForwardEqualsPlainLoops) {
  for (const Size& size : kSizes) {
    for (ResidualAt at : {ResidualAt::none, ResidualAt::elsewhere, ResidualAt::y}) {
      check_linear_forward<float>(size, at);
      check_linear_forward<double>(size, at);
    }
  }
}

TEST(Linear, BackwardEqualsPlainLoops) {
  for (const Size& size : kSizes) {
    for (bool accumulate_dx : {false, true}) {
      check_linear_backward<float>(size, accumulate_dx);
      check_linear_backward<double>(size, accumulate_dx);
    }
  }
}

TEST(Linear, GradientsCanBeLeftOut) {
  const auto x = random_values<double>(6, 1);
  const auto w = random_values<double>(4, 2);
  const auto dy = random_values<double>(6, 3);
  const Matrix<const double> x_view(x.data(), 3, 2);
  const Matrix<const double> w_view(w.data(), 2, 2);
  const Matrix<const double> dy_view(dy.data(), 3, 2);
  std::vector<double> db(2, 0.0);
  linear_backward<double>({}, {.x = x_view, .weight = w_view, .dy = dy_view, .dbias = db.data()});
  EXPECT_NEAR(db[0], dy[0] + dy[2] + dy[4], 1e-15);
  std::vector<double> dx(6, 0.0);
  linear_backward<double>({},
                          {.x = x_view, .weight = w_view, .dy = dy_view, .dx = {dx.data(), 3, 2}});
  EXPECT_NEAR(dx[1], dy[0] * w[1] + dy[1] * w[3], 1e-15);
}

TEST(Linear, NoRowsLeaveGradientsAlone) {
  const auto w = random_values<float>(12, 2);
  std::vector<float> dw(12, 1.0f);
  std::vector<float> db(3, 1.0f);
  linear_backward<float>({.threads = 2}, {.x = {nullptr, 0, 4},
                                          .weight = {w.data(), 3, 4},
                                          .dy = {nullptr, 0, 3},
                                          .dweight = {dw.data(), 3, 4},
                                          .dbias = db.data()});
  EXPECT_EQ(dw, std::vector<float>(12, 1.0f));
  EXPECT_EQ(db, std::vector<float>(3, 1.0f));
}

struct ConvCase {
  Index B, L, D, K;
  std::vector<double> x, weight, bias, dy, residual;
  bool has_bias = true, has_residual = false;
  Index silu_columns = 0;
};
ConvCase conv_case(Index B, Index L, Index D, Index K) {
  return {B,
          L,
          D,
          K,
          random_values<double>(B * L * D, 1),
          random_values<double>(D * K, 2),
          random_values<double>(D, 3),
          random_values<double>(B * L * D, 4),
          random_values<double>(B * L * D, 5)};
}

std::vector<double> plain_conv(const ConvCase& c) {
  std::vector<double> y;
  for (Index b = 0; b < c.B; ++b) {
    for (Index t = 0; t < c.L; ++t) {
      for (Index channel = 0; channel < c.D; ++channel) {
        double sum = c.has_bias ? c.bias[channel] : 0.0;
        for (Index j = 0; j < c.K; ++j) {
          const Index source = t - c.K + 1 + j;
          if (source < 0) continue;
          sum += c.weight[channel * c.K + j] * c.x[(b * c.L + source) * c.D + channel];
        }
        const bool silu = channel >= c.D - c.silu_columns;
        y.push_back(silu ? sum / (1.0 + std::exp(-sum)) : sum);
      }
    }
  }
  return y;
}

template <class T>
struct ConvResult {
  std::vector<T> y, dx, dweight, dbias;
  bool operator==(const ConvResult&) const = default;
};

template <class T>
ConvResult<T> run_conv(const ConvCase& c, const Context& context) {
  const auto round = [](const std::vector<double>& v) {
    return std::vector<T>(v.begin(), v.end());
  };
  Strided<T> x(c.B * c.L, c.D, 2, round(c.x));
  Strided<T> dy(c.B * c.L, c.D, 1, round(c.dy));
  const auto weight = round(c.weight);
  const auto bias = round(c.bias);
  Strided<T> y(c.B * c.L, c.D, 3);
  Strided<T> residual(c.B * c.L, c.D, 1, round(c.residual));
  Strided<T> dx(c.B * c.L, c.D, 4);
  std::vector<T> dweight(weight.size(), T(2)), dbias(c.D, T(3));
  const ShortConv<T> args{.batch = c.B,
                          .tokens = c.L,
                          .x = x.view(),
                          .weight = {weight.data(), c.D, c.K},
                          .bias = c.has_bias ? bias.data() : nullptr,
                          .silu_columns = c.silu_columns};
  short_conv_forward<T>(context, args, y.view());
  short_conv_backward<T>(context, args,
                         {.dy = dy.view(),
                          .residual = c.has_residual ? residual.view() : Matrix<T>(),
                          .dx = dx.view(),
                          .dweight = {dweight.data(), c.D, c.K},
                          .dbias = c.has_bias ? dbias.data() : nullptr});
  EXPECT_TRUE(y.gaps_untouched() && dx.gaps_untouched());
  return {y.values(), dx.values(), dweight, dbias};
}

void check_conv(ConvCase c) {
  SCOPED_TRACE(::testing::Message() << "B " << c.B << " T " << c.L << " D " << c.D << " K " << c.K
                                    << " SiLU " << c.silu_columns << " bias " << c.has_bias);
  const auto loss = [&] {
    const auto y = plain_conv(c);
    return std::inner_product(y.begin(), y.end(), c.dy.begin(), 0.0);
  };
  const auto y = plain_conv(c);
  auto dx = central_differences(c.x, loss);
  for (std::size_t i = 0; c.has_residual && i < dx.size(); ++i) dx[i] += c.residual[i];
  auto dweight = central_differences(c.weight, loss);
  auto dbias = central_differences(c.bias, loss);  // 0 without a bias
  for (double& value : dweight) value += 2.0;
  for (double& value : dbias) value += 3.0;
  const auto got = run_conv<double>(c, {});
  EXPECT_TRUE(near("y", got.y, y, 8.0 * kEpsilon<double>));
  EXPECT_TRUE(near("dx", got.dx, dx, kDifferenceTolerance));
  EXPECT_TRUE(near("dweight", got.dweight, dweight, kDifferenceTolerance));
  EXPECT_TRUE(near("dbias", got.dbias, dbias, kDifferenceTolerance));

  const auto single = run_conv<float>(c, {});
  // At most K products, or B L of them in dweight, of order one.
  EXPECT_TRUE(near("y float", single.y, y, 16 * kEpsilon<float>));
  EXPECT_TRUE(near("dx float", single.dx, got.dx, 64 * kEpsilon<float>));
  EXPECT_TRUE(near("dweight float", single.dweight, got.dweight, 300 * kEpsilon<float>));
  for (int threads : {2, 3}) {
    EXPECT_TRUE(got == run_conv<double>(c, {.threads = threads}));
    EXPECT_TRUE(single == run_conv<float>(c, {.threads = threads}));
  }
}

TEST(ShortConv, EqualsPlainLoopsAndDifferences) {
  // More taps than tokens, one tap, the usual four; two work items along time at 130 tokens.
  for (auto [B, L, D, K] :
       {std::array<Index, 4>{2, 3, 5, 6}, {1, 4, 2, 1}, {2, 7, 3, 4}, {1, 130, 1, 4}}) {
    check_conv(conv_case(B, L, D, K));
  }
}

TEST(ShortConv, TakesAResidualASiluAndNoBias) {
  for (auto [B, L, D, K] :
       {std::array<Index, 4>{2, 3, 5, 6}, {1, 4, 2, 1}, {2, 7, 9, 4}, {1, 130, 3, 4}}) {
    ConvCase c = conv_case(B, L, D, K);
    c.has_residual = true;
    check_conv(c);
    c.silu_columns = (D + 1) / 3;
    check_conv(c);
    c.has_bias = false;
    check_conv(c);
    c.silu_columns = D;
    check_conv(c);
  }
}

}  // namespace
}  // namespace vla_bench::ops
