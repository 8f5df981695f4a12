// The hardware's approximations where a chain of dependent instructions has no time for more.
#pragma once

#include <cuda_runtime.h>

namespace vla_bench::ops::cuda {

/// 1 / x up to one unit in the last place; subnormal x counts as 0.
__device__ inline float reciprocal(float x) {
  float y;
  // Volatile: a result that is not always used is not worth a wait for whether it is.
  asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace vla_bench::ops::cuda
