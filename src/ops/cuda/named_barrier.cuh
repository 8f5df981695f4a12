// Barriers of some warps of a block (PTX barrier.sync, barrier.arrive), by number. Number 0 is
// __syncthreads'; `threads`, a multiple of 32, counts those that arrive.
#pragma once

#include <cuda_runtime.h>

namespace vla_bench::ops::cuda {

__device__ inline void sync_named(int barrier, int threads) {
  asm volatile("barrier.sync.aligned %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
/// Does not wait.
__device__ inline void arrive_named(int barrier, int threads) {
  asm volatile("barrier.arrive.aligned %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

}  // namespace vla_bench::ops::cuda
