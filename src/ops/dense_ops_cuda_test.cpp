// CUDA against the CPU in double: affine maps in every precision, LayerNorm, the short convolution.
#include <algorithm>
#include <array>
#include <cmath>

#include "testing/gpu_operands.h"

namespace vla_bench::ops {
namespace {

using vla_bench::testing::expect_gpu_matches_cpu;
using vla_bench::testing::gpu_context;
using vla_bench::testing::kEpsilon;
using vla_bench::testing::Operand;
using vla_bench::testing::Outputs;
using vla_bench::testing::poison;
using vla_bench::testing::random_floats;
using vla_bench::testing::random_integers;

struct Size {
  Index M, N, K;
};
// One row, odd widths, several tiles of a product, the published map and its head.
const Size kSizes[] = {{1, 1, 1},      {1, 48, 33},   {3, 17, 5},       {257, 130, 31},
                       {33, 300, 257}, {700, 16, 64}, {4672, 256, 128}, {1536, 128, 128}};

enum class ResidualAt { none, elsewhere, y };

/// Operands of a product; with `integers` every result is exact in every precision.
struct Product {
  Size size;
  bool integers;
  Precision precision = Precision::float32;

  std::vector<double> values(Index count, std::uint32_t index) const {
    return integers ? random_integers(count, index) : random_floats(count, index);
  }
  /// A sum of `terms` products of standard normal values reaches about 4 sqrt(terms); its terms'
  /// magnitudes add up to 0.64 terms, and that sum times terms eps bounds the rounding in any order
  /// (Higham, Accuracy and Stability, section 4.2), divided by the largest value. Operands lose up
  /// to 2^-10 each as TF32 and 2^-7 as bfloat16 (their last bit, should they be cut off).
  double tolerance(Index terms) const {
    if (integers) return 0.0;
    const auto n = static_cast<double>(terms + 2);
    const double of_operands = precision == Precision::tf32   ? 0x1p-9
                               : precision == Precision::bf16 ? 0x1p-6
                                                              : 0.0;
    // Results are compared relative to the largest, which a single value need not reach.
    return (of_operands + n * kEpsilon<float>)*std::max(1.0, std::sqrt(n) / 4.0) *
           (n <= 3.0 ? 4.0 : 1.0);
  }
};

void check_linear_forward(const Product& product, ResidualAt at, bool with_bias) {
  const auto [M, N, K] = product.size;
  SCOPED_TRACE(::testing::Message()
               << "M " << M << " N " << N << " K " << K << " residual " << static_cast<int>(at)
               << " precision " << static_cast<int>(product.precision));
  const auto x = product.values(M * K, 1);
  const auto w = product.values(N * K, 2);
  const auto bias = product.values(N, 3);
  const auto residual = product.values(M * N, 4);
  const auto run = [&]<class T>(const Context& context) -> Outputs {
    Operand<T> x_operand(context, M, K, 3, x), w_operand(context, N, K, 1, w);
    Operand<T> bias_operand(context, bias), elsewhere(context, M, N, 1, residual);
    Operand<T> y(context, M, N, 2, at == ResidualAt::y ? residual : poison(M * N));
    Matrix<const T> added;
    if (at == ResidualAt::y) added = y.view();
    if (at == ResidualAt::elsewhere) added = elsewhere.view();
    linear_forward<T>(context, {.x = x_operand.view(),
                                .weight = w_operand.view(),
                                .bias = with_bias ? bias_operand.data() : nullptr,
                                .residual = added,
                                .y = y.view()});
    return {{"y", y.values(), product.tolerance(K)}};
  };
  expect_gpu_matches_cpu(run, product.precision);
}

void check_linear_backward(const Product& product, bool accumulate_dx, bool on_side_stream) {
  const auto [M, N, K] = product.size;
  SCOPED_TRACE(::testing::Message() << "M " << M << " N " << N << " K " << K << " accumulate "
                                    << accumulate_dx << " side stream " << on_side_stream
                                    << " precision " << static_cast<int>(product.precision));
  const auto x = product.values(M * K, 1);
  const auto w = product.values(N * K, 2);
  const auto dy = product.values(M * N, 3);
  const auto dx_start = product.values(M * K, 4);
  const auto dw_start = product.values(N * K, 5);
  const auto db_start = product.values(N, 6);
  const auto run = [&]<class T>(const Context& context) -> Outputs {
    Operand<T> x_operand(context, M, K, 3, x), w_operand(context, N, K, 1, w);
    Operand<T> dy_operand(context, M, N, 2, dy);
    Operand<T> dx(context, M, K, 4, accumulate_dx ? dx_start : poison(M * K));
    Operand<T> dw(context, N, K, 1, dw_start), db(context, db_start);
    linear_backward<T>(context, {.x = x_operand.view(),
                                 .weight = w_operand.view(),
                                 .dy = dy_operand.view(),
                                 .dx = dx.view(),
                                 .accumulate_dx = accumulate_dx,
                                 .dweight = dw.view(),
                                 .dbias = db.data(),
                                 .on_side_stream = on_side_stream});
    join_side_streams(context);
    // The bias' sum is in double, whatever the precision.
    return {{"dx", dx.values(), product.tolerance(N)},
            {"dweight", dw.values(), product.tolerance(M)},
            {"dbias", db.values(), product.integers ? 0.0 : 2 * kEpsilon<float>}};
  };
  expect_gpu_matches_cpu(run, product.precision);
}

TEST(LinearCuda, ForwardMatchesTheCpu) {
  VLA_NEEDS_GPU();
  for (const Size& size : kSizes) {
    for (const bool integers : {true, false}) {
      for (const ResidualAt at : {ResidualAt::none, ResidualAt::elsewhere, ResidualAt::y}) {
        for (const bool with_bias : {true, false}) {
          check_linear_forward({.size = size, .integers = integers}, at, with_bias);
        }
      }
    }
  }
}

TEST(LinearCuda, BackwardMatchesTheCpu) {
  VLA_NEEDS_GPU();
  for (const Size& size : kSizes) {
    for (const bool integers : {true, false}) {
      for (const bool accumulate_dx : {true, false}) {
        for (const bool on_side_stream : {true, false}) {
          check_linear_backward({.size = size, .integers = integers}, accumulate_dx,
                                on_side_stream);
        }
      }
    }
  }
}

TEST(LinearCuda, LowerPrecisionsStayWithinTheirOperands) {
  VLA_NEEDS_GPU();
  for (const Precision precision : {Precision::tf32, Precision::bf16}) {
    for (const Size& size : kSizes) {
      for (const bool integers : {true, false}) {
        const Product product{.size = size, .integers = integers, .precision = precision};
        check_linear_forward(product, ResidualAt::elsewhere, true);
        check_linear_backward(product, true, true);
      }
    }
  }
}

TEST(LinearCuda, GradientsCanBeLeftOut) {
  VLA_NEEDS_GPU();
  const auto x = random_integers(6, 1);
  const auto w = random_integers(4, 2);
  const auto dy = random_integers(6, 3);
  expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
    Operand<T> x_operand(context, 3, 2, 0, x), w_operand(context, 2, 2, 0, w);
    Operand<T> dy_operand(context, 3, 2, 0, dy);
    Operand<T> dx(context, 3, 2, 0, poison(6)), db(context, {1.0, 2.0});
    const LinearBackward<T> nothing{
        .x = x_operand.view(), .weight = w_operand.view(), .dy = dy_operand.view()};
    LinearBackward<T> bias_alone = nothing;
    bias_alone.dbias = db.data();
    linear_backward<T>(context, bias_alone);
    LinearBackward<T> input_alone = nothing;
    input_alone.dx = dx.view();
    linear_backward<T>(context, input_alone);
    return {{"dx", dx.values()}, {"db", db.values()}};
  });
}

struct LayerNormVariant {
  ResidualAt residual = ResidualAt::none;  // `y` stands for dx
  bool dx_is_dy = false;
  bool on_side_stream = false;
};

void check_layer_norm(Index M, Index D, Index gap, const LayerNormVariant& variant) {
  SCOPED_TRACE(::testing::Message()
               << "M " << M << " D " << D << " gap " << gap << " residual "
               << static_cast<int>(variant.residual) << " dx is dy " << variant.dx_is_dy
               << " side stream " << variant.on_side_stream);
  auto x = random_floats(M * D, 1);
  for (double& value : x) value = static_cast<float>(value + 3.0);  // a mean to be removed
  const auto weight = random_floats(D, 2);
  const auto bias = random_floats(D, 3);
  const auto dy = random_floats(M * D, 4);
  const auto residual = random_floats(M * D, 5);
  const auto dweight_start = random_floats(D, 6);
  const auto dbias_start = random_floats(D, 7);
  expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
    const bool in_dx = variant.residual == ResidualAt::y;
    Operand<T> x_operand(context, M, D, gap, x), dy_operand(context, M, D, gap, dy);
    Operand<T> weight_operand(context, weight), bias_operand(context, bias);
    Operand<T> y(context, M, D, gap, poison(M * D)), elsewhere(context, M, D, gap, residual);
    Operand<T> own_dx(context, M, D, gap, in_dx ? residual : poison(M * D));
    Operand<T> mean(context, poison(M)), inverse_std(context, poison(M));
    Operand<T> dweight(context, dweight_start), dbias(context, dbias_start);
    Operand<T>& dx = variant.dx_is_dy ? dy_operand : own_dx;
    layer_norm_forward<T>(context, {.x = x_operand.view(),
                                    .weight = weight_operand.data(),
                                    .bias = bias_operand.data(),
                                    .residual = in_dx ? x_operand.view() : Matrix<T>(),
                                    .y = y.view(),
                                    .mean = mean.data(),
                                    .inverse_std = inverse_std.data()});
    Matrix<const T> added;
    if (in_dx) added = dx.view();
    if (variant.residual == ResidualAt::elsewhere) added = elsewhere.view();
    layer_norm_backward<T>(context, {.x = x_operand.view(),
                                     .weight = weight_operand.data(),
                                     .mean = mean.data(),
                                     .inverse_std = inverse_std.data(),
                                     .dy = dy_operand.view(),
                                     .residual = added,
                                     .dx = dx.view(),
                                     .dweight = dweight.data(),
                                     .dbias = dbias.data(),
                                     .on_side_stream = variant.on_side_stream});
    join_side_streams(context);
    // A thread's D / 32 terms and five more additions, of values near 3 that are centred to order
    // one; a few such sums enter dx. 1 / std of a row of equal values is 300: D = 1.
    const double sums = static_cast<double>(D) / 32.0 + 5.0;
    const double tolerance = 4.0 * sums * kEpsilon<float> * (D == 1 ? 300.0 : 1.0);
    return {{"y", y.values(), tolerance},
            {"mean", mean.values(), sums * kEpsilon<float>},
            {"inverse std", inverse_std.values(), tolerance},
            // A row of one value has no gradient but its rounding: order one is the measure.
            {"dx", dx.values(), tolerance, 1.0},
            // Sums in double of terms with the error of y.
            {"dweight", dweight.values(), tolerance},
            {"dbias", dbias.values(), 2 * kEpsilon<float>}};
  });
}

TEST(LayerNormCuda, MatchesTheCpu) {
  VLA_NEEDS_GPU();
  for (const auto& [M, D] : {std::pair<Index, Index>{1, 5},
                             {3, 1},
                             {3, 33},
                             {33, 300},
                             {257, 128},
                             {257, 1024},
                             {33, 1500},
                             {4672, 128}}) {
    check_layer_norm(M, D, 0, {});
    check_layer_norm(M, D, 3, {.residual = ResidualAt::elsewhere, .on_side_stream = true});
    check_layer_norm(M, D, 1, {.residual = ResidualAt::y});
    check_layer_norm(M, D, 1, {.residual = ResidualAt::elsewhere, .dx_is_dy = true});
  }
  // More column groups than counters: two launches.
  check_layer_norm(2, 33000, 0, {.on_side_stream = true});
}

void check_rms_norm(Index M, Index D, Index gap, bool on_side_stream) {
  SCOPED_TRACE(::testing::Message()
               << "M " << M << " D " << D << " gap " << gap << " side stream " << on_side_stream);
  const auto x = random_floats(M * D, 1);
  const auto weight = random_floats(D, 2);
  const auto dy = random_floats(M * D, 3);
  const auto dweight_start = random_floats(D, 4);
  expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
    Operand<T> x_operand(context, M, D, gap, x), dy_operand(context, M, D, gap, dy);
    Operand<T> weight_operand(context, weight);
    Operand<T> y(context, M, D, gap, poison(M * D)), own_dx(context, M, D, gap, poison(M * D));
    Operand<T> inverse_rms(context, poison(M)), dweight(context, dweight_start);
    // In place only on the main stream, since a side stream reads dy.
    Operand<T>& dx = on_side_stream ? own_dx : dy_operand;
    rms_norm_forward<T>(context, {.x = x_operand.view(),
                                  .weight = weight_operand.data(),
                                  .epsilon = 1e-3,
                                  .y = y.view(),
                                  .inverse_rms = inverse_rms.data()});
    rms_norm_backward<T>(context, {.x = x_operand.view(),
                                   .weight = weight_operand.data(),
                                   .inverse_rms = inverse_rms.data(),
                                   .dy = dy_operand.view(),
                                   .dx = dx.view(),
                                   .dweight = dweight.data(),
                                   .on_side_stream = on_side_stream});
    join_side_streams(context);
    // A thread's D / 32 terms and five more additions; epsilon bounds 1 / rms by 32, which counts
    // at D = 1 and 5, where a row can be short.
    const double sums = static_cast<double>(D) / 32.0 + 5.0;
    const double tolerance = 4.0 * sums * kEpsilon<float> * (D <= 5 ? 32.0 : 1.0);
    return {{"y", y.values(), tolerance},
            {"inverse rms", inverse_rms.values(), tolerance},
            {"dx", dx.values(), tolerance, 1.0},
            {"dweight", dweight.values(), tolerance}};
  });
}

TEST(RmsNormCuda, MatchesTheCpu) {
  VLA_NEEDS_GPU();
  for (const auto& [M, D] : {std::pair<Index, Index>{1, 5},
                             {3, 1},
                             {3, 33},
                             {33, 300},
                             {18688, 32},
                             {257, 1024},
                             {33, 1500}}) {
    check_rms_norm(M, D, 0, true);
    check_rms_norm(M, D, 3, false);
  }
}

struct ConvCase {
  Index B, L, D, K;
  Index silu_columns = 0;
  bool has_bias = true;
  bool has_residual = false;
  bool on_side_stream = false;
};

void check_short_conv(const ConvCase& c) {
  const Index B = c.B, L = c.L, D = c.D, K = c.K;
  SCOPED_TRACE(::testing::Message()
               << "B " << B << " T " << L << " D " << D << " K " << K << " SiLU " << c.silu_columns
               << " bias " << c.has_bias << " residual " << c.has_residual);
  const Index M = B * L;
  const auto x = random_integers(M * D, 1);
  const auto weight = random_integers(D * K, 2);
  const auto bias = random_integers(D, 3);
  const auto dy = random_integers(M * D, 4);
  const auto dweight_start = random_integers(D * K, 5);
  const auto dbias_start = random_integers(D, 6);
  const auto residual = random_integers(M * D, 7);
  expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
    Operand<T> x_operand(context, M, D, 2, x), dy_operand(context, M, D, 1, dy);
    Operand<T> residual_operand(context, M, D, 3, residual);
    Operand<T> weight_operand(context, D, K, 1, weight), bias_operand(context, bias);
    Operand<T> y(context, M, D, 3, poison(M * D)), dx(context, M, D, 4, poison(M * D));
    Operand<T> dweight(context, D, K, 2, dweight_start), dbias(context, dbias_start);
    const ShortConv<T> args{.batch = B,
                            .tokens = L,
                            .x = x_operand.view(),
                            .weight = weight_operand.view(),
                            .bias = c.has_bias ? bias_operand.data() : nullptr,
                            .silu_columns = c.silu_columns};
    short_conv_forward<T>(context, args, y.view());
    short_conv_backward<T>(context, args,
                           {.dy = dy_operand.view(),
                            .residual = c.has_residual ? residual_operand.view() : Matrix<T>(),
                            .dx = dx.view(),
                            .dweight = dweight.view(),
                            .dbias = c.has_bias ? dbias.data() : nullptr,
                            .on_side_stream = c.on_side_stream});
    join_side_streams(context);
    // Integers are exact. A SiLU and its derivative are not: a few roundings and exp's two ulp, and
    // a row of taps or a column of M rows of them.
    const bool exact = c.silu_columns == 0;
    const double silu = exact ? 0.0 : 8 * kEpsilon<float>;
    return {{"y", y.values(), silu},
            {"dy of the convolution", dy_operand.values(), silu},
            {"dx", dx.values(), exact ? 0.0 : 8 * kEpsilon<float> * static_cast<double>(K)},
            {"dweight", dweight.values(), 2 * silu, 8.0 * std::sqrt(static_cast<double>(M))},
            {"dbias", dbias.values(), 2 * silu, 8.0 * std::sqrt(static_cast<double>(M))}};
  });
}

TEST(ShortConvCuda, EqualsTheCpu) {
  VLA_NEEDS_GPU();
  // More taps than tokens, one tap, the usual four; several blocks of rows and columns.
  for (const ConvCase& c : {ConvCase{2, 3, 5, 6},
                            {1, 4, 2, 1},
                            {2, 7, 3, 4},
                            {1, 130, 1, 4},
                            {3, 50, 300, 3},
                            {1, 70, 1024, 64},
                            {64, 73, 128, 4}}) {
    check_short_conv(c);
  }
}

TEST(ShortConvCuda, TakesAResidualASiluAndNoBias) {
  VLA_NEEDS_GPU();
  check_short_conv(
      {.B = 3, .L = 50, .D = 300, .K = 3, .has_residual = true, .on_side_stream = true});
  check_short_conv({.B = 2, .L = 3, .D = 5, .K = 6, .has_bias = false});
  check_short_conv({.B = 2, .L = 3, .D = 5, .K = 6, .silu_columns = 5});
  check_short_conv({.B = 1, .L = 70, .D = 99, .K = 9, .silu_columns = 33, .has_bias = false});
  check_short_conv({.B = 64,
                    .L = 73,
                    .D = 384,
                    .K = 4,
                    .silu_columns = 128,
                    .has_bias = false,
                    .on_side_stream = true});
}

}  // namespace
}  // namespace vla_bench::ops
