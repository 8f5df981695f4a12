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

/// 1 / sqrt(x) for normal x: the hardware's approximation and one step of Newton's.
__device__ inline float inverse_root(float x) {
  const float y = rsqrtf(x);
  const float half = 0.5F * x * y;
  return fmaf(fmaf(-half, y, 0.5F), y, y);
}

}  // namespace vla_bench::ops::cuda
