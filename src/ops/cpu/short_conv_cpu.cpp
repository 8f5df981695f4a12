// Causal depthwise convolution over time. Rows are contiguous in channels, so the taps are first
// transposed to (K, D) and every inner loop runs over channels.
#include "ops/backends.h"
#include "ops/cpu/blocks.h"
#include "ops/cpu/vector_math.h"

namespace vla_bench::ops::cpu {
namespace {

/// Tokens per work item; a sequence of the published size is one item.
constexpr Index kTokenBlock = 128;

/// (batch row, block of tokens) pairs.
struct Items {
  Index batch;
  Blocks tokens;

  Index count() const { return batch * tokens.count(); }
  Index batch_row(Index item) const { return item / tokens.count(); }
  Index first(Index item) const { return tokens.first(item % tokens.count()); }
  Index last(Index item) const { return first(item) + tokens.length(item % tokens.count()); }
};

template <class T>
void transpose_taps(Matrix<const T> weight, T* taps) {  // (D, K) -> (K, D)
  for (Index j = 0; j < weight.cols; ++j) {
    for (Index c = 0; c < weight.rows; ++c) taps[j * weight.rows + c] = weight.row(c)[j];
  }
}

/// sum_j taps[j] x[t-K+1+j] + bias at row (b, t) with start = b T, for channels first .. D-1, to
/// out (D). taps: (K, D).
template <class T>
void convolve(const ShortConv<T>& args, const T* taps, Index start, Index t, Index first, T* out) {
  const Index D = args.x.cols;
  const Index K = args.weight.cols;
  for (Index c = first; c < D; ++c) out[c] = args.bias != nullptr ? args.bias[c] : T(0);
  for (Index j = std::max<Index>(0, K - 1 - t); j < K; ++j) {
    const T* x = args.x.row(start + t - (K - 1) + j);
    const T* tap = taps + j * D;
#pragma omp simd
    for (Index c = first; c < D; ++c) out[c] += tap[c] * x[c];
  }
}

/// dy *= silu'(z) = s (1 + z (1 - s)), s = sigmoid(z), in the columns with a SiLU; z is convolved
/// again.
template <class T>
void silu_backward(const Context& context, const ShortConv<T>& args, const Items& items,
                   const T* taps, Matrix<T> dy) {
  const Index D = args.x.cols;
  const Index first = D - args.silu_columns;
  T* rows = scratch<T, 1>(items.count() * D);  // z, one row per item
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index item = 0; item < items.count(); ++item) {
    const Index start = items.batch_row(item) * args.tokens;
    T* z = rows + item * D;
    for (Index t = items.first(item); t < items.last(item); ++t) {
      convolve<T>(args, taps, start, t, first, z);
      T* gradient = dy.row(start + t);
#pragma omp simd
      for (Index c = first; c < D; ++c) {
        const T sigma = 1 / (1 + exp(-z[c]));
        gradient[c] *= sigma * (1 + z[c] * (1 - sigma));
      }
    }
  }
}

}  // namespace

template <class T>
void short_conv_forward(const Context& context, const ShortConv<T>& args, Matrix<T> y) {
  const Index D = args.x.cols;
  const Index K = args.weight.cols;
  T* taps = scratch<T>(K * D);
  transpose_taps(args.weight, taps);
  const Items items{args.batch, {args.tokens, kTokenBlock}};
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index item = 0; item < items.count(); ++item) {
    const Index start = items.batch_row(item) * args.tokens;
    for (Index t = items.first(item); t < items.last(item); ++t) {
      T* out = y.row(start + t);
      convolve<T>(args, taps, start, t, 0, out);
#pragma omp simd
      for (Index c = D - args.silu_columns; c < D; ++c) out[c] = out[c] / (1 + exp(-out[c]));
    }
  }
}

// dx[t] = sum_j w[j] dy[t + K-1 - j];  dw[j] = sum_t dy[t] x[t - (K-1) + j];  db = sum_t dy[t].
template <class T>
void short_conv_backward(const Context& context, const ShortConv<T>& args,
                         const ShortConvGradients<T>& gradients) {
  const Index D = args.x.cols;
  const Index K = args.weight.cols;
  const Items items{args.batch, {args.tokens, kTokenBlock}};
  const Index partial_size = (K + 1) * D;  // dw as (K, D), then db
  T* taps = scratch<T>(K * D + items.count() * partial_size);
  T* partials = taps + K * D;
  transpose_taps(args.weight, taps);
  // Before the loop below, whose items read each other's rows of dy.
  if (args.silu_columns > 0) silu_backward<T>(context, args, items, taps, gradients.dy);
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index item = 0; item < items.count(); ++item) {
    const Index start = items.batch_row(item) * args.tokens;
    T* dtaps = partials + item * partial_size;
    T* dbias = dtaps + K * D;
    std::fill_n(dtaps, partial_size, T(0));
    for (Index t = items.first(item); t < items.last(item); ++t) {
      const T* dy = gradients.dy.row(start + t);
      T* dx = gradients.dx.row(start + t);
      std::fill_n(dx, D, T(0));
      for (Index j = std::max<Index>(0, t + K - args.tokens); j < K; ++j) {
        const T* later = gradients.dy.row(start + t + K - 1 - j);
        const T* tap = taps + j * D;
#pragma omp simd
        for (Index c = 0; c < D; ++c) dx[c] += tap[c] * later[c];
      }
      if (!gradients.residual.empty()) {
        const T* residual = gradients.residual.row(start + t);
#pragma omp simd
        for (Index c = 0; c < D; ++c) dx[c] += residual[c];
      }
      for (Index j = std::max<Index>(0, K - 1 - t); j < K; ++j) {
        const T* x = args.x.row(start + t - (K - 1) + j);
        T* dtap = dtaps + j * D;
#pragma omp simd
        for (Index c = 0; c < D; ++c) dtap[c] += dy[c] * x[c];
      }
#pragma omp simd
      for (Index c = 0; c < D; ++c) dbias[c] += dy[c];
    }
  }
  for (Index item = 0; item < items.count(); ++item) {
    const T* partial = partials + item * partial_size;
    for (Index c = 0; c < D; ++c) {
      for (Index j = 0; j < K; ++j) gradients.dweight.row(c)[j] += partial[j * D + c];
      if (gradients.dbias != nullptr) gradients.dbias[c] += partial[K * D + c];
    }
  }
}

template void short_conv_forward(const Context&, const ShortConv<float>&, Matrix<float>);
template void short_conv_forward(const Context&, const ShortConv<double>&, Matrix<double>);
template void short_conv_backward(const Context&, const ShortConv<float>&,
                                  const ShortConvGradients<float>&);
template void short_conv_backward(const Context&, const ShortConv<double>&,
                                  const ShortConvGradients<double>&);

}  // namespace vla_bench::ops::cpu
