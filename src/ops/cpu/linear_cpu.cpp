// Matrix products of the affine maps, on blocks of rows. At the widths of the small model (measured
// at 128 and 256) Eigen's product takes 1.2 to 1.4 times as long: it copies both operands and
// zeroes the result. Here the weight alone is copied, and sums start from bias and residual.
#include <algorithm>
#include <limits>

#include "core/tile_product.h"
#include "ops/backends.h"
#include "ops/cpu/blocks.h"

namespace vla_bench::ops::cpu {
namespace {

/// Splits `rows` into an even number of blocks of about 300 rows, at most `limit` blocks: long
/// enough for full speed of the product, short enough that operands stay in L2; even, because two
/// threads are the common case. Blocks but the last have whole groups of the rows that products
/// compute together.
Blocks row_blocks(Index rows, Index limit = std::numeric_limits<Index>::max()) {
  constexpr Index kRowsOfTwoBlocks = 640;
  constexpr Index kGroup = 6;  // for every vector length, since sums over blocks depend on it
  static_assert(kGroup % kProductRows<float> == 0 && kGroup % kProductRows<double> == 0);
  const Index wanted = 2 * ((rows + kRowsOfTwoBlocks - 1) / kRowsOfTwoBlocks);
  const Index count = std::max<Index>(1, std::min(wanted, limit));
  const Index groups = (rows + count * kGroup - 1) / (count * kGroup);
  return {rows, std::max<Index>(1, groups) * kGroup};
}

/// result = start + left B, where element (m, c) of B is at(m, c). B is copied in panels of four
/// vectors of columns: a panel, whose rows follow each other, stays in L1 while rows of `left`
/// pass.
template <class T, class At, class Start>
void multiply(const Context& context, Matrix<const T> left, Matrix<T> result, const At& at,
              const Start& start) {
  const Index inner = left.cols;
  const Blocks panels{result.cols, 4 * kVectorLength<T>};
  const Blocks blocks = row_blocks(result.rows);
  T* memory = scratch<T, 2>(inner * result.cols);
  const auto panel_of = [&](Index panel) {
    return RowsOperand<T>{memory + panels.first(panel) * inner, panels.length(panel)};
  };
#pragma omp parallel num_threads(context.threads)
  {
#pragma omp for schedule(static)
    for (Index panel = 0; panel < panels.count(); ++panel) {
      const RowsOperand<T> to = panel_of(panel);
      for (Index m = 0; m < inner; ++m) {
        for (Index c = 0; c < to.stride; ++c) *to.at(m, c) = at(m, panels.first(panel) + c);
      }
    }
#pragma omp for schedule(static)
    for (Index block = 0; block < blocks.count(); ++block) {
      const Index first = blocks.first(block);
      for (Index panel = 0; panel < panels.count(); ++panel) {
        const RowsOperand<T> right = panel_of(panel);
        const Index column = panels.first(panel);
        tile_product<T>(
            {blocks.length(block), inner, panels.length(panel)}, {left.row(first), left.stride, 1},
            {right.data, right.stride}, {result.row(first) + column, result.stride},
            [&](auto lanes, Index row, Index c) { return start(lanes, first + row, column + c); });
      }
    }
  }
}

/// Summed in double: some biases have gradients that vanish identically (the key bias of softmax
/// attention), and Adam magnifies the rounding noise of their sums.
template <class T>
void column_sums(Matrix<const T> x, Index first, Index count, double* sums) {
  std::fill_n(sums, x.cols, 0.0);
  for (Index i = first; i < first + count; ++i) {
    const T* row = x.row(i);
#pragma omp simd
    for (Index j = 0; j < x.cols; ++j) sums[j] += static_cast<double>(row[j]);
  }
}

/// dW += dy^T x, db += column sums of dy, sums over all rows. Each work item (block of rows, slab
/// of outputs) computes a partial result; these are added in the order of the rows.
template <class T>
void weight_gradients(const Context& context, const LinearBackward<T>& args) {
  constexpr Index kSlab = 128;
  constexpr Index kPartialBytes = Index{32} << 20;
  const Index N = args.dy.cols;
  const Index K = args.dweight.empty() ? 0 : args.x.cols;
  const Index weight_bytes = N * K * static_cast<Index>(sizeof(T));
  const Blocks blocks = row_blocks(args.dy.rows, kPartialBytes / std::max<Index>(1, weight_bytes));
  const Blocks slabs{N, kSlab};
  T* partials = scratch<T>(blocks.count() * N * K);                // (blocks, N, K)
  double* bias_partials = scratch<double, 1>(blocks.count() * N);  // (blocks, N)

#pragma omp parallel num_threads(context.threads)
  {
#pragma omp for schedule(static)
    for (Index item = 0; item < blocks.count() * slabs.count(); ++item) {
      const Index block = item / slabs.count();
      const Index slab = item % slabs.count();
      const Index first_row = blocks.first(block);
      const Index rows = blocks.length(block);
      const Index first = slabs.first(slab);
      const Index outputs = slabs.length(slab);
      const Matrix<const T> dy = args.dy.columns(first, outputs);
      if (K > 0) {
        tile_product<T>({outputs, rows, K}, {dy.row(first_row), 1, dy.stride},
                        {args.x.row(first_row), args.x.stride},
                        {partials + (block * N + first) * K, K});
      }
      if (args.dbias != nullptr) {
        column_sums(dy, first_row, rows, bias_partials + block * N + first);
      }
    }
#pragma omp for schedule(static)
    for (Index n = 0; n < N; ++n) {
      T* dweight = args.dweight.row(n);
      double dbias = 0.0;
      for (Index block = 0; block < blocks.count(); ++block) {
        const T* partial = partials + (block * N + n) * K;
#pragma omp simd
        for (Index k = 0; k < K; ++k) dweight[k] += partial[k];
        if (args.dbias != nullptr) dbias += bias_partials[block * N + n];
      }
      if (args.dbias != nullptr) args.dbias[n] += static_cast<T>(dbias);
    }
  }
}

}  // namespace

template <class T>
void linear_forward(const Context& context, const LinearForward<T>& args) {
  multiply<T>(
      context, args.x, args.y, [&](Index k, Index n) { return args.weight.row(n)[k]; },
      [&](auto lanes, Index row, Index column) {
        auto sum = lanes.repeat(T(0));
        if (args.bias != nullptr) sum = lanes.read(args.bias + column);
        if (!args.residual.empty()) sum += lanes.read(args.residual.row(row) + column);
        return sum;
      });
}

template <class T>
void linear_backward(const Context& context, const LinearBackward<T>& args) {
  if (!args.dx.empty()) {
    multiply<T>(
        context, args.dy, args.dx, [&](Index n, Index k) { return args.weight.row(n)[k]; },
        [&](auto lanes, Index row, Index column) {
          return args.accumulate_dx ? lanes.read(args.dx.row(row) + column) : lanes.repeat(T(0));
        });
  }
  if (!args.dweight.empty() || args.dbias != nullptr) weight_gradients(context, args);
}

template void linear_forward(const Context&, const LinearForward<float>&);
template void linear_forward(const Context&, const LinearForward<double>&);
template void linear_backward(const Context&, const LinearBackward<float>&);
template void linear_backward(const Context&, const LinearBackward<double>&);

}  // namespace vla_bench::ops::cpu
