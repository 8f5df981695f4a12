// Causal depthwise convolution over time: one thread per channel of a row, which reads its taps'
// rows from cache.
//
// At M = 4,672, D = 128, K = 4 the forward reads and writes 2.4 MB each and dx the same: floors of
// 1 us at 5 TB/s; 3 us expected each. The gradients of up to four taps read dy once and x once
// per tap, most of the latter from L1: 4 us expected.
//
// On q, k and v of 256 sequences of 256 tokens at D = 128 the arrays have 25.2 million elements,
// 101 MB each: the forward 58 us at 3.5 TB/s from HBM, dx the same, the taps' gradients as much
// again beside it.
#include <cuda_runtime.h>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/cuda/warp.h"
#include "ops/backends.h"
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/positions.cuh"

namespace vla_bench::ops::cuda {
namespace {

constexpr int kConvRows = 8;
const dim3 kConvBlock(kWarp, kConvRows);

/// The channel and row (b, t) of a thread.
struct Item {
  Index channel, row, token;

  __device__ explicit Item(Index tokens)
      : channel(static_cast<Index>(blockIdx.y) * kWarp + threadIdx.x),
        row(static_cast<Index>(blockIdx.x) * kConvRows + threadIdx.y),
        token(token_of_row(row, tokens)) {}
};

/// The convolution at a thread's item, before a SiLU.
__device__ inline float convolve(const ShortConv<float>& args, const Item& item) {
  const Index K = args.weight.cols;
  const float* weight = args.weight.data + item.channel * args.weight.stride;
  const float* newest = args.x.data + item.row * args.x.stride + item.channel;
  float sum = args.bias != nullptr ? args.bias[item.channel] : 0.0F;
#pragma unroll 4
  for (Index j = max(Index{0}, K - 1 - item.token); j < K; ++j) {
    sum += weight[j] * newest[(j - (K - 1)) * args.x.stride];
  }
  return sum;
}

__device__ inline bool has_silu(const ShortConv<float>& args, Index channel) {
  return channel >= args.x.cols - args.silu_columns;
}

__global__ void forward_kernel(ShortConv<float> args, Matrix<float> y) {
  const Item item(args.tokens);
  if (item.row >= args.x.rows || item.channel >= args.x.cols) return;
  const float z = convolve(args, item);
  y.data[item.row * y.stride + item.channel] =
      has_silu(args, item.channel) ? z / (1.0F + expf(-z)) : z;
}

// dy *= silu'(z) = s (1 + z (1 - s)), s = sigmoid(z), in the columns with a SiLU, `first` on; z is
// convolved again.
__global__ void silu_backward_kernel(ShortConv<float> args, Index first, Matrix<float> dy) {
  Item item(args.tokens);
  item.channel += first;
  if (item.row >= args.x.rows || item.channel >= args.x.cols) return;
  const float z = convolve(args, item);
  const float sigma = 1.0F / (1.0F + expf(-z));
  dy.data[item.row * dy.stride + item.channel] *= sigma * (1.0F + z * (1.0F - sigma));
}

// dx[t] = residual[t] + sum_j w[j] dy[t + K-1 - j].
__global__ void backward_kernel(ShortConv<float> args, ShortConvGradients<float> gradients) {
  const Item item(args.tokens);
  const Matrix<float>& dy = gradients.dy;
  const Matrix<float>& dx = gradients.dx;
  const Matrix<const float>& residual = gradients.residual;
  if (item.row >= dx.rows || item.channel >= dx.cols) return;
  const Index K = args.weight.cols;
  const float* weight = args.weight.data + item.channel * args.weight.stride;
  const float* own = dy.data + item.row * dy.stride + item.channel;
  float sum = 0.0F;
#pragma unroll 4
  for (Index j = max(Index{0}, item.token + K - args.tokens); j < K; ++j) {
    sum += weight[j] * own[(K - 1 - j) * dy.stride];
  }
  if (residual.data != nullptr) sum += residual.data[item.row * residual.stride + item.channel];
  dx.data[item.row * dx.stride + item.channel] = sum;
}

/// Part p sums dw[K-1 - lag] = sum_t dy[t] x[t - lag] of kLags lags, 4 p on, and db = sum_t dy[t].
struct ConvTerms {
  static constexpr int kLags = 4;
  static constexpr int kSums = kLags + 1;  // in a thread's registers
  ShortConv<float> args;
  ShortConvGradients<float> gradients;

  __device__ void add(int part, Index first, Index last, int column, double* sums) const {
    const Index first_lag = static_cast<Index>(part) * kLags;
    const float* x = args.x.data + column - first_lag * args.x.stride;
    const float* dy = gradients.dy.data + column;
    Index token = token_of_row(first, args.tokens);
    // x[t - first_lag - l] at [l], zero before a sequence's first token: a row reads one more.
    double lagged[kLags] = {};
#pragma unroll
    for (int l = 1; l < kLags; ++l) {
      if (token - l >= first_lag)
        lagged[l - 1] = static_cast<double>(x[(first - l) * args.x.stride]);
    }
#pragma unroll 4
    for (Index row = first; row < last; ++row) {
#pragma unroll
      for (int l = kLags - 1; l > 0; --l) lagged[l] = token > 0 ? lagged[l - 1] : 0.0;
      lagged[0] = token >= first_lag ? static_cast<double>(x[row * args.x.stride]) : 0.0;
      const auto upstream = static_cast<double>(dy[row * gradients.dy.stride]);
#pragma unroll
      for (int l = 0; l < kLags; ++l) sums[l] += upstream * lagged[l];
      sums[kLags] += upstream;
      token = token + 1 < args.tokens ? token + 1 : 0;
    }
  }
  __device__ void store(int part, int column, const double* totals) const {
    const Index K = args.weight.cols;
    for (int l = 0; l < kLags; ++l) {
      const Index j = K - 1 - (static_cast<Index>(part) * kLags + l);
      if (j < 0) continue;
      gradients.dweight.data[column * gradients.dweight.stride + j] +=
          static_cast<float>(totals[l]);
    }
    if (part == 0 && gradients.dbias != nullptr) {
      gradients.dbias[column] += static_cast<float>(totals[kLags]);
    }
  }
};

dim3 grid_of(Index rows, Index channels) {
  return dim3(static_cast<unsigned>((rows + kConvRows - 1) / kConvRows),
              static_cast<unsigned>((channels + kWarp - 1) / kWarp));
}

}  // namespace

void short_conv_forward(const Context&, const ShortConv<float>& args, Matrix<float> y) {
  if (args.x.rows == 0) return;
  forward_kernel<<<grid_of(args.x.rows, args.x.cols), kConvBlock, 0,
                   vla_bench::cuda::stream_context().stream()>>>(args, y);
  VLA_CUDA_LAUNCHED("short_conv_forward");
}

void short_conv_backward(const Context&, const ShortConv<float>& args,
                         const ShortConvGradients<float>& gradients) {
  if (args.x.rows == 0) return;
  vla_bench::cuda::StreamContext& gpu = vla_bench::cuda::stream_context();
  const cudaStream_t stream = gpu.stream();
  if (args.silu_columns > 0) {
    silu_backward_kernel<<<grid_of(args.x.rows, args.silu_columns), kConvBlock, 0, stream>>>(
        args, args.x.cols - args.silu_columns, gradients.dy);
    VLA_CUDA_LAUNCHED("short_conv_backward, silu");
  }
  constexpr Index kLags = ConvTerms::kLags;
  const auto parts = static_cast<unsigned>((args.weight.cols + kLags - 1) / kLags);
  sum_columns(
      gradients.on_side_stream ? gpu.fork_side_stream(vla_bench::cuda::SideStream::sums) : stream,
      ConvTerms{.args = args, .gradients = gradients}, args.x.rows, args.x.cols, parts);
  backward_kernel<<<grid_of(args.x.rows, args.x.cols), kConvBlock, 0, stream>>>(args, gradients);
  VLA_CUDA_LAUNCHED("short_conv_backward");
}

}  // namespace vla_bench::ops::cuda
