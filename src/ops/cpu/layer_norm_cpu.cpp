// LayerNorm and RMSNorm, row by row.
#include <cmath>

#include "ops/backends.h"
#include "ops/cpu/blocks.h"

namespace vla_bench::ops::cpu {
namespace {

constexpr Index kRowBlock = 64;

}  // namespace

template <class T>
void layer_norm_forward(const Context& context, const LayerNormForward<T>& args) {
  const Index D = args.x.cols;
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index i = 0; i < args.x.rows; ++i) {
    const T* x = args.x.row(i);
    T* y = args.y.row(i);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index j = 0; j < D; ++j) sum += x[j];
    const T mean = sum / static_cast<T>(D);
    // From centred values, since E[x^2] - mean^2 cancels when the mean is large.
    T squares = 0;
#pragma omp simd reduction(+ : squares)
    for (Index j = 0; j < D; ++j) squares += (x[j] - mean) * (x[j] - mean);
    const T variance = squares / static_cast<T>(D);
    const T inverse_std = 1 / std::sqrt(variance + static_cast<T>(kLayerNormEpsilon));
    const T* residual = args.residual.empty() ? nullptr : args.residual.row(i);
#pragma omp simd
    for (Index j = 0; j < D; ++j) {
      const T value = (x[j] - mean) * inverse_std * args.weight[j] + args.bias[j];
      y[j] = residual != nullptr ? residual[j] + value : value;
    }
    args.mean[i] = mean;
    args.inverse_std[i] = inverse_std;
  }
}

// With n = (x - mean) inverse_std and g = dy weight:
//   dx = inverse_std (g - mean(g) - n mean(g n)),  dweight = sum dy n,  dbias = sum dy.
template <class T>
void layer_norm_backward(const Context& context, const LayerNormBackward<T>& args) {
  const Index D = args.x.cols;
  const Blocks blocks{args.x.rows, kRowBlock};
  T* partials = scratch<T>(blocks.count() * 2 * D);  // (blocks, 2, D): dweight, dbias
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index block = 0; block < blocks.count(); ++block) {
    T* dweight = partials + block * 2 * D;
    T* dbias = dweight + D;
    std::fill_n(dweight, 2 * D, T(0));
    const Index first = blocks.first(block);
    for (Index i = first; i < first + blocks.length(block); ++i) {
      const T* x = args.x.row(i);
      const T* dy = args.dy.row(i);
      T* dx = args.dx.row(i);
      const T mean = args.mean[i];
      const T inverse_std = args.inverse_std[i];
      T sum_g = 0;
      T sum_gn = 0;
#pragma omp simd reduction(+ : sum_g, sum_gn)
      for (Index j = 0; j < D; ++j) {
        const T n = (x[j] - mean) * inverse_std;
        const T g = dy[j] * args.weight[j];
        sum_g += g;
        sum_gn += g * n;
        dweight[j] += dy[j] * n;
        dbias[j] += dy[j];
      }
      const T mean_g = sum_g / static_cast<T>(D);
      const T mean_gn = sum_gn / static_cast<T>(D);
      const T* residual = args.residual.empty() ? nullptr : args.residual.row(i);
#pragma omp simd
      for (Index j = 0; j < D; ++j) {
        const T n = (x[j] - mean) * inverse_std;
        const T value = inverse_std * (dy[j] * args.weight[j] - mean_g - n * mean_gn);
        dx[j] = residual != nullptr ? residual[j] + value : value;
      }
    }
  }
  for (Index block = 0; block < blocks.count(); ++block) {
    const T* partial = partials + block * 2 * D;
#pragma omp simd
    for (Index j = 0; j < D; ++j) {
      args.dweight[j] += partial[j];
      args.dbias[j] += partial[D + j];
    }
  }
}

template <class T>
void rms_norm_forward(const Context& context, const RmsNormForward<T>& args) {
  const Index D = args.x.cols;
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index i = 0; i < args.x.rows; ++i) {
    const T* x = args.x.row(i);
    T* y = args.y.row(i);
    T squares = 0;
#pragma omp simd reduction(+ : squares)
    for (Index j = 0; j < D; ++j) squares += x[j] * x[j];
    const T inverse_rms = 1 / std::sqrt(squares / static_cast<T>(D) + static_cast<T>(args.epsilon));
#pragma omp simd
    for (Index j = 0; j < D; ++j) y[j] = x[j] * inverse_rms * args.weight[j];
    args.inverse_rms[i] = inverse_rms;
  }
}

// With n = x inverse_rms and g = dy weight: dx = inverse_rms (g - n mean(g n)),
// dweight = sum dy n.
template <class T>
void rms_norm_backward(const Context& context, const RmsNormBackward<T>& args) {
  const Index D = args.x.cols;
  const Blocks blocks{args.x.rows, kRowBlock};
  T* partials = scratch<T>(blocks.count() * D);  // (blocks, D)
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index block = 0; block < blocks.count(); ++block) {
    T* dweight = partials + block * D;
    std::fill_n(dweight, D, T(0));
    const Index first = blocks.first(block);
    for (Index i = first; i < first + blocks.length(block); ++i) {
      const T* x = args.x.row(i);
      const T* dy = args.dy.row(i);
      T* dx = args.dx.row(i);
      const T inverse_rms = args.inverse_rms[i];
      T sum_gn = 0;
#pragma omp simd reduction(+ : sum_gn)
      for (Index j = 0; j < D; ++j) {
        const T n = x[j] * inverse_rms;
        sum_gn += dy[j] * args.weight[j] * n;
        dweight[j] += dy[j] * n;
      }
      const T mean_gn = sum_gn / static_cast<T>(D);
#pragma omp simd
      for (Index j = 0; j < D; ++j) {
        dx[j] = inverse_rms * (dy[j] * args.weight[j] - x[j] * inverse_rms * mean_gn);
      }
    }
  }
  for (Index block = 0; block < blocks.count(); ++block) {
    const T* partial = partials + block * D;
#pragma omp simd
    for (Index j = 0; j < D; ++j) args.dweight[j] += partial[j];
  }
}

template void layer_norm_forward(const Context&, const LayerNormForward<float>&);
template void layer_norm_forward(const Context&, const LayerNormForward<double>&);
template void layer_norm_backward(const Context&, const LayerNormBackward<float>&);
template void layer_norm_backward(const Context&, const LayerNormBackward<double>&);
template void rms_norm_forward(const Context&, const RmsNormForward<float>&);
template void rms_norm_forward(const Context&, const RmsNormForward<double>&);
template void rms_norm_backward(const Context&, const RmsNormBackward<float>&);
template void rms_norm_backward(const Context&, const RmsNormBackward<double>&);

}  // namespace vla_bench::ops::cpu
