// Matrix products of the affine maps, by Eigen on blocks of rows.
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Core>
#include <limits>

#include "ops/backends.h"
#include "ops/cpu/blocks.h"

namespace vla_bench::ops::cpu {
namespace {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
Eigen::Map<RowMajor<T>, 0, Eigen::OuterStride<>> rows_of(Matrix<T> m, Index first, Index count) {
  return {m.row(first), count, m.cols, Eigen::OuterStride<>(m.stride)};
}
template <class T>
Eigen::Map<const RowMajor<T>, 0, Eigen::OuterStride<>> rows_of(Matrix<const T> m, Index first,
                                                               Index count) {
  return {m.row(first), count, m.cols, Eigen::OuterStride<>(m.stride)};
}

/// Splits `rows` into an even number of blocks of about 300 rows, at most `limit` blocks: long
/// enough for full speed of the product, short enough that operands stay in L2; even, because two
/// threads are the common case.
Blocks row_blocks(Index rows, Index limit = std::numeric_limits<Index>::max()) {
  constexpr Index kRowsOfTwoBlocks = 640;
  const Index wanted = 2 * ((rows + kRowsOfTwoBlocks - 1) / kRowsOfTwoBlocks);
  const Index count = std::max<Index>(1, std::min(wanted, limit));
  return {rows, std::max<Index>(1, (rows + count - 1) / count)};
}

template <class T>
void add_row(const T* addend, T* row, Index count) {
#pragma omp simd
  for (Index j = 0; j < count; ++j) row[j] += addend[j];
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
        const Matrix<T> partial(partials + (block * N + first) * K, outputs, K);
        rows_of(partial, 0, outputs).noalias() =
            rows_of(dy, first_row, rows).transpose() * rows_of(args.x, first_row, rows);
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
  const Blocks blocks = row_blocks(args.y.rows);
  const auto weight = rows_of(args.weight, 0, args.weight.rows);
  const bool in_place = args.residual.data == args.y.data;
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index block = 0; block < blocks.count(); ++block) {
    const Index first = blocks.first(block);
    const Index length = blocks.length(block);
    const auto product = rows_of(args.x, first, length) * weight.transpose();
    auto y = rows_of(args.y, first, length);
    if (in_place) {
      y.noalias() += product;
    } else {
      y.noalias() = product;
    }
    for (Index i = first; i < first + length; ++i) {
      if (args.bias != nullptr) add_row(args.bias, args.y.row(i), args.y.cols);
      if (!args.residual.empty() && !in_place) {
        add_row(args.residual.row(i), args.y.row(i), args.y.cols);
      }
    }
  }
}

template <class T>
void linear_backward(const Context& context, const LinearBackward<T>& args) {
  if (!args.dx.empty()) {
    const Blocks blocks = row_blocks(args.dx.rows);
    const auto weight = rows_of(args.weight, 0, args.weight.rows);
#pragma omp parallel for num_threads(context.threads) schedule(static)
    for (Index block = 0; block < blocks.count(); ++block) {
      const auto dy = rows_of(args.dy, blocks.first(block), blocks.length(block));
      auto dx = rows_of(args.dx, blocks.first(block), blocks.length(block));
      if (args.accumulate_dx) {
        dx.noalias() += dy * weight;
      } else {
        dx.noalias() = dy * weight;
      }
    }
  }
  if (!args.dweight.empty() || args.dbias != nullptr) weight_gradients(context, args);
}

template void linear_forward(const Context&, const LinearForward<float>&);
template void linear_forward(const Context&, const LinearForward<double>&);
template void linear_backward(const Context&, const LinearBackward<float>&);
template void linear_backward(const Context&, const LinearBackward<double>&);

}  // namespace vla_bench::ops::cpu
