// Sums over a warp, a thread block and a grid, always in the same order.
#pragma once

#include <cuda_runtime.h>

#include "core/cuda/warp.h"

namespace vla_bench::ops::cuda {

/// The sum over the threads of a warp, in every thread. All of them must take part.
template <class T>
__device__ inline T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  return value;
}

__device__ inline float warp_max(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, offset));
  }
  return value;
}

/// The sum over a one-dimensional block of kWarps warps, in every thread. All threads must take
/// part; `shared` may be reused at once.
template <int kWarps, class T>
__device__ inline T block_sum(T value, T (&shared)[kWarps]) {
  value = warp_sum(value);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = shared[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) sum += shared[i];
  return sum;
}

template <int kWarps>
__device__ inline float block_max(float value, float (&shared)[kWarps]) {
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  float maximum = shared[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) maximum = fmaxf(maximum, shared[i]);
  return maximum;
}

/// True in exactly one block of those that count on `counter`: the last to arrive, which then sees
/// what all `blocks` of them wrote to global memory before. The counter starts at 0 and is left at
/// 0. All threads of the block must call it.
__device__ inline bool is_last_block(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    last = atomicAdd(counter, 1U) == blocks - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  if (last) __threadfence();
  return last;
}

}  // namespace vla_bench::ops::cuda
