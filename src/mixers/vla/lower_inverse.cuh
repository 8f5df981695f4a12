// The inverse of a chunk's Cholesky factor that is known in full.
#pragma once

#include "mixers/recurrence/chunk_triangles.cuh"

namespace vla_bench::mixers::cuda {

/// L^-1 of L, lower triangular with C = 16 or 32 rows, by one warp; above its diagonal blocks
/// nothing is written.
template <int C, int kStride>
__device__ inline void invert_lower(const float* L, float* inverse) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // A column a thread: rows from the diagonal block's first, by substitution.
  if (lane < C) {
    const int first = lane / 16 * 16;
    const int column = lane % 16;
    const float* block = L + first * (kStride + 1);
    float x[16], inverse_diagonal[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) inverse_diagonal[i] = 1.0F / block[i * (kStride + 1)];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float sum = i == column ? 1.0F : 0.0F;
#pragma unroll
      for (int j = 0; j < i; ++j) sum = fmaf(-block[i * kStride + j], x[j], sum);
      x[i] = sum * inverse_diagonal[i];
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) inverse[(first + i) * kStride + first + column] = x[i];
  }
  __syncwarp();
  if constexpr (C == 32) {
    // -(L^-1)_11 L_10 (L^-1)_00, transposed.
    WarpBlock first, factor, last, sum, product;
    first.load_transposed<kStride>(inverse);
    factor.load<kStride>(L + 16 * kStride);
    last.load<kStride>(inverse + 16 * (kStride + 1));
    sum.add_product<false>(first, factor);
    product.add_product<true>(sum, last);
    product.store_transposed<kStride>(inverse + 16 * kStride);
    __syncwarp();
  }
}

}  // namespace vla_bench::mixers::cuda
