// A barrier of some threads of a block, in shared memory (PTX mbarrier).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace vla_bench::ops::cuda {

struct PartialBarrier {
  std::uint64_t state;

  /// By one thread; __syncthreads before the first use.
  __device__ void start(unsigned threads) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(threads)
                 : "memory");
  }
  /// By all of them. `parity`: of how many times the barrier has been used before, modulo 2.
  __device__ void sync(unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .b64 token;\n"
        "mbarrier.arrive.shared::cta.b64 token, [%0];\n"
        "}\n" ::"r"(address())
        : "memory");
    unsigned done = 0;
    while (done == 0) {
      asm volatile(
          "{\n"
          ".reg .pred passed;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 passed, [%1], %2;\n"
          "selp.u32 %0, 1, 0, passed;\n"
          "}\n"
          : "=r"(done)
          : "r"(address()), "r"(parity)
          : "memory");
    }
  }

 private:
  __device__ unsigned address() { return static_cast<unsigned>(__cvta_generic_to_shared(&state)); }
};

}  // namespace vla_bench::ops::cuda
