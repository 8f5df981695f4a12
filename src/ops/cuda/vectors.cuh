// Loads and stores of four floats at a time where addresses allow it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/index.h"

namespace vla_bench::ops::cuda {

inline constexpr int kVector = 4;  // floats in a 16-byte access, the widest one

/// Whether float4 may be read from all of these addresses.
template <class... Pointers>
bool aligned_for_vectors(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % sizeof(float4) == 0) && ...);
}

/// Loads elements first .. first + 3 of a buffer of `count`; leaves `values` unchanged beyond its
/// end.
__device__ inline void load_vector(const float* from, Index first, Index count, bool aligned,
                                   float (&values)[kVector]) {
  if (aligned && first + kVector <= count) {
    const float4 four = *reinterpret_cast<const float4*>(from + first);
    values[0] = four.x;
    values[1] = four.y;
    values[2] = four.z;
    values[3] = four.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (first + i < count) values[i] = from[first + i];
  }
}

__device__ inline void store_vector(float* to, Index first, Index count, bool aligned,
                                    const float (&values)[kVector]) {
  if (aligned && first + kVector <= count) {
    *reinterpret_cast<float4*>(to + first) =
        make_float4(values[0], values[1], values[2], values[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (first + i < count) to[first + i] = values[i];
  }
}

}  // namespace vla_bench::ops::cuda
