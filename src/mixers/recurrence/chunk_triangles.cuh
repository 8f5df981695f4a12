// Inverses of 16 x 16 triangular blocks, by one warp.
#pragma once

#include "mixers/recurrence/chunk_rows.cuh"

namespace vla_bench::mixers::cuda {

/// Puts the inverse of a unit lower triangular block in its place, which is in the order of
/// chunk_rows.cuh with rows kStride words apart; what stands on and above its diagonal is not read.
/// A column a thread, by substitution in float32: no product of L with itself, whose terms grow and
/// cancel where keys are alike.
template <int kStride>
__device__ inline void invert_unit_block(float* block) {
  constexpr auto kToken = [](int word) {
    return 8 * (word / 2 % 2) + shuffled(2 * (word / 4) + word % 2);
  };
  const int word = static_cast<int>(threadIdx.x) % 16;
  const int column = 8 * (word / 2 % 2) + shuffled(2 * (word / 4) + word % 2);
  float x[16];
#pragma unroll
  for (int row = 0; row < 16; ++row) {
    float line[16];
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      const float4 y = *reinterpret_cast<const float4*>(block + row * kStride + 4 * quad);
      line[4 * quad] = y.x;
      line[4 * quad + 1] = y.y;
      line[4 * quad + 2] = y.z;
      line[4 * quad + 3] = y.w;
    }
    float sum[2] = {row == column ? 1.0F : 0.0F, 0.0F};
#pragma unroll
    for (int other = 0; other < row; ++other) {
#pragma unroll
      for (int w = 0; w < 16; ++w) {
        if (kToken(w) == other) sum[other % 2] = fmaf(-line[w], x[other], sum[other % 2]);
      }
    }
    x[row] = sum[0] + sum[1];
  }
  __syncwarp();
#pragma unroll
  for (int row = 0; row < 16; ++row) block[row * kStride + word] = x[row];
  __syncwarp();
}

}  // namespace vla_bench::mixers::cuda
