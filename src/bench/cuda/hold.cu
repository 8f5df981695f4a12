#include "bench/cuda/hold.h"
#include "core/cuda/check.h"

namespace vla_bench::cuda {
namespace {

__device__ unsigned long long now_ns() {
  unsigned long long time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}

__global__ void hold_kernel(unsigned long long nanoseconds) {
  const unsigned long long start = now_ns();
  while (now_ns() - start < nanoseconds) {
  }
}

}  // namespace

void hold(cudaStream_t stream, unsigned long long nanoseconds) {
  hold_kernel<<<1, 1, 0, stream>>>(nanoseconds);
  VLA_CUDA_LAUNCHED("hold_kernel");
}

}  // namespace vla_bench::cuda
