// LayerNorm and RMSNorm: one warp per row; rows of up to 1,024 channels stay in registers.
//
// At the published size (M = 4,672, D = 128) the forward reads and writes 2.4 MB each and the
// backward moves 9.6 MB (x, dy, residual, dx), all in L2: floors of 1 and 2 us at 5 TB/s; 2.5 and
// 3.5 us expected, most of it the latency of one row. The parameters' gradients read x and dy
// again, 4.8 MB, on a side stream: 4 us expected, hidden behind what follows dx.
//
// RMSNorm over heads of 32 channels has a warp for every head: at 256 sequences of 256 tokens and 4
// heads 262,144 rows, 33.6 MB read and written by the forward, three arrays by the backward: 20 and
// 30 us expected from HBM at 3.5 TB/s.
#include <cuda_runtime.h>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "ops/backends.h"
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/warp_row.cuh"

namespace vla_bench::ops::cuda {
namespace {

constexpr int kNormThreads = kRowsOfBlock * kWarp;

__device__ inline Index row_of_warp() {
  return static_cast<Index>(blockIdx.x) * kRowsOfBlock + threadIdx.x / kWarp;
}

template <int kSlots>
__global__ void __launch_bounds__(kNormThreads) forward_kernel(LayerNormForward<float> args) {
  const Index row = row_of_warp();
  if (row >= args.x.rows) return;
  const int D = static_cast<int>(args.x.cols);
  const WarpRow<kSlots> x(args.x.data + row * args.x.stride, D);
  float sum = 0.0F;
  for_thread_columns<kSlots>(D, [&](int slot, int column) { sum += x.at(slot, column); });
  const float mean = warp_sum(sum) / static_cast<float>(D);
  // From centred values, since E[x^2] - mean^2 cancels when the mean is large.
  float squares = 0.0F;
  for_thread_columns<kSlots>(D, [&](int slot, int column) {
    const float centred = x.at(slot, column) - mean;
    squares += centred * centred;
  });
  const float variance = warp_sum(squares) / static_cast<float>(D);
  const float inverse_std = 1.0F / sqrtf(variance + static_cast<float>(kLayerNormEpsilon));
  const float* residual =
      args.residual.data != nullptr ? args.residual.data + row * args.residual.stride : nullptr;
  float* y = args.y.data + row * args.y.stride;
  for_thread_columns<kSlots>(D, [&](int slot, int column) {
    const float value =
        (x.at(slot, column) - mean) * inverse_std * args.weight[column] + args.bias[column];
    y[column] = residual != nullptr ? residual[column] + value : value;
  });
  if (threadIdx.x % kWarp == 0) {
    args.mean[row] = mean;
    args.inverse_std[row] = inverse_std;
  }
}

// With n = (x - mean) inverse_std and g = dy weight: dx = inverse_std (g - mean(g) - n mean(g n)).
// dx may be dy or the residual: only the thread that writes a column reads it, and before it
// writes.
template <int kSlots>
__global__ void __launch_bounds__(kNormThreads) backward_kernel(LayerNormBackward<float> args) {
  const Index row = row_of_warp();
  if (row >= args.x.rows) return;
  const int D = static_cast<int>(args.x.cols);
  const WarpRow<kSlots> x(args.x.data + row * args.x.stride, D);
  const WarpRow<kSlots> dy(args.dy.data + row * args.dy.stride, D);
  const float mean = args.mean[row];
  const float inverse_std = args.inverse_std[row];
  float sum_g = 0.0F;
  float sum_gn = 0.0F;
  for_thread_columns<kSlots>(D, [&](int slot, int column) {
    const float n = (x.at(slot, column) - mean) * inverse_std;
    const float g = dy.at(slot, column) * args.weight[column];
    sum_g += g;
    sum_gn += g * n;
  });
  const float mean_g = warp_sum(sum_g) / static_cast<float>(D);
  const float mean_gn = warp_sum(sum_gn) / static_cast<float>(D);
  const float* residual =
      args.residual.data != nullptr ? args.residual.data + row * args.residual.stride : nullptr;
  float* dx = args.dx.data + row * args.dx.stride;
  for_thread_columns<kSlots>(D, [&](int slot, int column) {
    const float n = (x.at(slot, column) - mean) * inverse_std;
    const float g = dy.at(slot, column) * args.weight[column];
    const float value = inverse_std * (g - mean_g - n * mean_gn);
    dx[column] = residual != nullptr ? residual[column] + value : value;
  });
}

/// dweight += sum over rows of dy n, dbias += sum of dy.
struct ParameterTerms {
  static constexpr int kSums = 2;
  const float* x;   // (M, D)
  const float* dy;  // (M, D)
  Index x_stride, dy_stride;
  const float* mean;         // (M)
  const float* inverse_std;  // (M)
  float* dweight;            // (D)
  float* dbias;              // (D)

  __device__ void add(int, Index first, Index last, int column, double* sums) const {
#pragma unroll 4
    for (Index row = first; row < last; ++row) {
      const float n = (x[row * x_stride + column] - mean[row]) * inverse_std[row];
      const auto upstream = static_cast<double>(dy[row * dy_stride + column]);
      sums[0] += upstream * static_cast<double>(n);
      sums[1] += upstream;
    }
  }
  __device__ void store(int, int column, const double* totals) const {
    dweight[column] += static_cast<float>(totals[0]);
    dbias[column] += static_cast<float>(totals[1]);
  }
};

template <int kSlots>
__global__ void __launch_bounds__(kNormThreads) rms_forward_kernel(RmsNormForward<float> args) {
  const Index row = row_of_warp();
  if (row >= args.x.rows) return;
  const int D = static_cast<int>(args.x.cols);
  const WarpRow<kSlots> x(args.x.data + row * args.x.stride, D);
  float squares = 0.0F;
  for_thread_columns<kSlots>(
      D, [&](int slot, int column) { squares += x.at(slot, column) * x.at(slot, column); });
  const float mean_square = warp_sum(squares) / static_cast<float>(D);
  const float inverse_rms = 1.0F / sqrtf(mean_square + static_cast<float>(args.epsilon));
  float* y = args.y.data + row * args.y.stride;
  for_thread_columns<kSlots>(D, [&](int slot, int column) {
    y[column] = x.at(slot, column) * inverse_rms * args.weight[column];
  });
  if (threadIdx.x % kWarp == 0) args.inverse_rms[row] = inverse_rms;
}

// With n = x inverse_rms and g = dy weight: dx = inverse_rms (g - n mean(g n)). dx may be dy, as
// above.
template <int kSlots>
__global__ void __launch_bounds__(kNormThreads) rms_backward_kernel(RmsNormBackward<float> args) {
  const Index row = row_of_warp();
  if (row >= args.x.rows) return;
  const int D = static_cast<int>(args.x.cols);
  const WarpRow<kSlots> x(args.x.data + row * args.x.stride, D);
  const WarpRow<kSlots> dy(args.dy.data + row * args.dy.stride, D);
  const float inverse_rms = args.inverse_rms[row];
  float sum_gn = 0.0F;
  for_thread_columns<kSlots>(D, [&](int slot, int column) {
    sum_gn += dy.at(slot, column) * args.weight[column] * (x.at(slot, column) * inverse_rms);
  });
  const float mean_gn = warp_sum(sum_gn) / static_cast<float>(D);
  float* dx = args.dx.data + row * args.dx.stride;
  for_thread_columns<kSlots>(D, [&](int slot, int column) {
    const float n = x.at(slot, column) * inverse_rms;
    const float g = dy.at(slot, column) * args.weight[column];
    dx[column] = inverse_rms * (g - n * mean_gn);
  });
}

/// dweight += sum over rows of dy n.
struct RmsParameterTerms {
  static constexpr int kSums = 1;
  const float* x;   // (M, D)
  const float* dy;  // (M, D)
  Index x_stride, dy_stride;
  const float* inverse_rms;  // (M)
  float* dweight;            // (D)

  __device__ void add(int, Index first, Index last, int column, double* sum) const {
#pragma unroll 4
    for (Index row = first; row < last; ++row) {
      const float n = x[row * x_stride + column] * inverse_rms[row];
      *sum += static_cast<double>(dy[row * dy_stride + column]) * static_cast<double>(n);
    }
  }
  __device__ void store(int, int column, const double* total) const {
    dweight[column] += static_cast<float>(*total);
  }
};

/// The stream of a backward's sums over rows.
cudaStream_t sums_stream(vla_bench::cuda::StreamContext& gpu, bool on_side_stream) {
  return on_side_stream ? gpu.fork_side_stream(vla_bench::cuda::SideStream::sums) : gpu.stream();
}

}  // namespace

void layer_norm_forward(const Context&, const LayerNormForward<float>& args) {
  if (args.x.rows == 0) return;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  dispatch_slots(args.x.cols, [&]<int kSlots>() {
    forward_kernel<kSlots><<<row_blocks(args.x.rows), kNormThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("layer_norm_forward");
}

void layer_norm_backward(const Context&, const LayerNormBackward<float>& args) {
  if (args.x.rows == 0) return;
  vla_bench::cuda::StreamContext& gpu = vla_bench::cuda::stream_context();
  // Launched before dx: to run beside it on the side stream, or else because dx may overwrite dy.
  sum_columns(sums_stream(gpu, args.on_side_stream),
              ParameterTerms{.x = args.x.data,
                             .dy = args.dy.data,
                             .x_stride = args.x.stride,
                             .dy_stride = args.dy.stride,
                             .mean = args.mean,
                             .inverse_std = args.inverse_std,
                             .dweight = args.dweight,
                             .dbias = args.dbias},
              args.x.rows, args.x.cols);
  dispatch_slots(args.x.cols, [&]<int kSlots>() {
    backward_kernel<kSlots><<<row_blocks(args.x.rows), kNormThreads, 0, gpu.stream()>>>(args);
  });
  VLA_CUDA_LAUNCHED("layer_norm_backward");
}

void rms_norm_forward(const Context&, const RmsNormForward<float>& args) {
  if (args.x.rows == 0) return;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  dispatch_slots(args.x.cols, [&]<int kSlots>() {
    rms_forward_kernel<kSlots><<<row_blocks(args.x.rows), kNormThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("rms_norm_forward");
}

void rms_norm_backward(const Context&, const RmsNormBackward<float>& args) {
  if (args.x.rows == 0) return;
  vla_bench::cuda::StreamContext& gpu = vla_bench::cuda::stream_context();
  sum_columns(sums_stream(gpu, args.on_side_stream),
              RmsParameterTerms{.x = args.x.data,
                                .dy = args.dy.data,
                                .x_stride = args.x.stride,
                                .dy_stride = args.dy.stride,
                                .inverse_rms = args.inverse_rms,
                                .dweight = args.dweight},
              args.x.rows, args.x.cols);
  dispatch_slots(args.x.cols, [&]<int kSlots>() {
    rms_backward_kernel<kSlots><<<row_blocks(args.x.rows), kNormThreads, 0, gpu.stream()>>>(args);
  });
  VLA_CUDA_LAUNCHED("rms_norm_backward");
}

}  // namespace vla_bench::ops::cuda
