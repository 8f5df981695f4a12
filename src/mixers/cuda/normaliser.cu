#include <algorithm>

#include "core/cuda/check.h"
#include "mixers/cuda/head_size.h"
#include "mixers/cuda/normaliser.h"
#include "mixers/cuda/token_tiles.cuh"

namespace vla_bench::mixers::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kTokens = 32;  // of a tile: a warp sums up one token's products after another
// Tokens whose loads are under way together: a load takes several hundred cycles, a token ten.
constexpr int kAtOnce = 16;
static_assert(kTokens % kAtOnce == 0);

/// A block a lane, a thread a channel (at least a warp). Products z_j q_j of a tile of tokens wait
/// in shared memory until warps sum them up.
template <int D>
__global__ void __launch_bounds__(D < kWarp ? kWarp : D)
    normaliser_forward_kernel(const NormaliserForward args) {
  constexpr int kThreads = D < kWarp ? kWarp : D;
  __shared__ float products[kTokens][D + 1];
  const auto tokens = static_cast<int>(args.dims.tokens);
  const auto heads = static_cast<int>(args.dims.heads);
  const int batch = blockIdx.x / heads;
  const int head = blockIdx.x % heads;
  const int channel = threadIdx.x;
  const auto width = static_cast<int>(args.dims.d_h);
  const float* f = args.f.data + batch * args.f.batch + head * args.f.head;
  const float* q = args.q.data + batch * args.q.batch + head * args.q.head;
  const Index first_scalar = static_cast<Index>(batch) * tokens * heads + head;
  float z = 0.0F;
  for (int first = 0; first < tokens; first += kTokens) {
    const int count = min(kTokens, tokens - first);
    if (channel < width) {
      for (int batch_first = 0; batch_first < count; batch_first += kAtOnce) {
        float f_ahead[kAtOnce], q_ahead[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const bool valid = batch_first + i < count;
          const Index at = first + batch_first + i;
          f_ahead[i] = valid ? f[at * args.f.token + channel] : 0.0F;
          q_ahead[i] = valid ? q[at * args.q.token + channel] : 0.0F;
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          z += f_ahead[i];
          products[batch_first + i][channel] = z * q_ahead[i];
        }
      }
    }
    __syncthreads();
    for (int t = threadIdx.x / kWarp; t < count; t += kThreads / kWarp) {
      float sum = 0.0F;
      for (int i = threadIdx.x % kWarp; i < width; i += kWarp) sum += products[t][i];
      sum = group_sum<kWarp>(sum);
      if (threadIdx.x % kWarp == 0) {
        const Index at = first_scalar + static_cast<Index>(first + t) * heads;
        args.denominator[at] = sum;
        args.scale[at] = 1.0F / at_least(sum, args.floor);
      }
    }
    __syncthreads();
  }
}

/// A block a lane. Warps first find dc of every token; then D threads walk in time with z and as
/// many against time with the sum of dc q.
template <int D>
__global__ void __launch_bounds__(2 * (D < kWarp ? kWarp : D))
    normaliser_backward_kernel(const NormaliserBackward args) {
  constexpr int kHalf = D < kWarp ? kWarp : D;
  const auto tokens = static_cast<int>(args.dims.tokens);
  const auto heads = static_cast<int>(args.dims.heads);
  const int batch = blockIdx.x / heads;
  const int head = blockIdx.x % heads;
  const Index first_scalar = static_cast<Index>(batch) * tokens * heads + head;
  float* dc = args.d_denominator + first_scalar;
  const auto width = static_cast<int>(args.dims.d_h);

  const float* o = args.o.data + batch * args.o.batch + head * args.o.head;
  const float* d_o = args.d_o.data + batch * args.d_o.batch + head * args.d_o.head;
  for (int t = threadIdx.x / kWarp; t < tokens; t += 2 * kHalf / kWarp) {
    float along = 0.0F;
    for (int i = threadIdx.x % kWarp; i < width; i += kWarp) {
      along = fmaf(o[t * args.o.token + i], d_o[t * args.d_o.token + i], along);
    }
    along = group_sum<kWarp>(along);
    if (threadIdx.x % kWarp == 0) {
      const float c = args.denominator[first_scalar + static_cast<Index>(t) * heads];
      dc[static_cast<Index>(t) * heads] = c < args.floor ? 0.0F : -along / c;
    }
  }
  __syncthreads();  // orders global memory within the block too

  const int channel = threadIdx.x % kHalf;
  if (channel >= width) return;
  const float* q = args.q.data + batch * args.q.batch + head * args.q.head + channel;
  if (threadIdx.x < kHalf) {
    const float* f = args.f.data + batch * args.f.batch + head * args.f.head + channel;
    float* dq = args.dq.data + batch * args.dq.batch + head * args.dq.head + channel;
    float z = 0.0F;
    for (int first = 0; first < tokens; first += kAtOnce) {
      float f_ahead[kAtOnce], dc_ahead[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const bool valid = first + i < tokens;
        f_ahead[i] = valid ? f[(first + i) * args.f.token] : 0.0F;
        dc_ahead[i] = valid ? dc[static_cast<Index>(first + i) * heads] : 0.0F;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        z += f_ahead[i];
        if (first + i < tokens) dq[(first + i) * args.dq.token] = dc_ahead[i] * z;
      }
    }
  } else {
    float* df = args.df.data + batch * args.df.batch + head * args.df.head + channel;
    float dz = 0.0F;
    for (int last = tokens - 1; last >= 0; last -= kAtOnce) {
      float q_ahead[kAtOnce], dc_ahead[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const bool valid = last - i >= 0;
        q_ahead[i] = valid ? q[(last - i) * args.q.token] : 0.0F;
        dc_ahead[i] = valid ? dc[static_cast<Index>(last - i) * heads] : 0.0F;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        dz = fmaf(dc_ahead[i], q_ahead[i], dz);
        if (last - i >= 0) df[(last - i) * args.df.token] = dz;
      }
    }
  }
}

__global__ void denominator_scale_kernel(const float* denominator, float floor, float* scale,
                                         Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) scale[i] = 1.0F / at_least(denominator[i], floor);
}

}  // namespace

void normaliser_forward(cudaStream_t stream, const NormaliserForward& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    normaliser_forward_kernel<D>
        <<<static_cast<unsigned>(args.dims.lanes()), std::max(D, kWarp), 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("normaliser_forward_kernel");
}

void normaliser_backward(cudaStream_t stream, const NormaliserBackward& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    normaliser_backward_kernel<D>
        <<<static_cast<unsigned>(args.dims.lanes()), 2 * std::max(D, kWarp), 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("normaliser_backward_kernel");
}

void denominator_scale(cudaStream_t stream, const float* denominator, float floor, float* scale,
                       Index count) {
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  denominator_scale_kernel<<<blocks, kThreads, 0, stream>>>(denominator, floor, scale, count);
  VLA_CUDA_LAUNCHED("denominator_scale_kernel");
}

}  // namespace vla_bench::mixers::cuda
