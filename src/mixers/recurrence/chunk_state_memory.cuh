// A warp's 16 rows of M, in the tiles of chunk_rows.cuh, from and to global memory.
#pragma once

#include "mixers/recurrence/chunk_rows.cuh"

namespace vla_bench::mixers::cuda {

// Rows g and g + 8 of a warp's tiles are its value rows 2 g and 2 g + 1.

/// A warp's 16 rows, from or to (d, d) in global memory.
template <int D, class Quad>
__device__ inline void each_quad(const Place& at, int first_row, const Quad& quad) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int m = 0; m < D / 16; ++m) {
      quad((first_row + 2 * at.g + half) * D + 16 * m + 4 * at.t, m, half);
    }
  }
}
template <int D>
__device__ inline void load_state(const Place& at, const float* from, int first_row,
                                  TileRow<D / 8>& s) {
  each_quad<D>(at, first_row, [&](int offset, int m, int half) {
    const float4 x = *reinterpret_cast<const float4*>(from + offset);
    s[2 * m][2 * half] = x.x;
    s[2 * m + 1][2 * half] = x.y;
    s[2 * m][2 * half + 1] = x.z;
    s[2 * m + 1][2 * half + 1] = x.w;
  });
}
template <int D>
__device__ inline void store_state(const Place& at, float* to, int first_row,
                                   const TileRow<D / 8>& s) {
  each_quad<D>(at, first_row, [&](int offset, int m, int half) {
    *reinterpret_cast<float4*>(to + offset) =
        make_float4(s[2 * m][2 * half], s[2 * m + 1][2 * half], s[2 * m][2 * half + 1],
                    s[2 * m + 1][2 * half + 1]);
  });
}
/// Of the thread's share of its two rows, the sums of their products with those in memory.
template <int D>
__device__ inline float2 row_products(const Place& at, const float* from, int first_row,
                                      const TileRow<D / 8>& s) {
  float sum[2] = {};
  each_quad<D>(at, first_row, [&](int offset, int m, int half) {
    const float4 x = *reinterpret_cast<const float4*>(from + offset);
    sum[half] = fmaf(x.x, s[2 * m][2 * half], sum[half]);
    sum[half] = fmaf(x.y, s[2 * m + 1][2 * half], sum[half]);
    sum[half] = fmaf(x.z, s[2 * m][2 * half + 1], sum[half]);
    sum[half] = fmaf(x.w, s[2 * m + 1][2 * half + 1], sum[half]);
  });
  return make_float2(sum[0], sum[1]);
}
/// Of M^T.
template <int D>
__device__ inline void load_transposed(const Place& at, const float* from, int first_row,
                                       TileRow<D / 8>& s) {
#pragma unroll
  for (int tile = 0; tile < D / 8; ++tile) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int channel = 16 * (tile / 2) + 4 * at.t + 2 * (c % 2) + tile % 2;
      s[tile][c] = from[channel * D + first_row + 2 * at.g + c / 2];
    }
  }
}
/// Rows of the identity.
template <int D>
__device__ inline void set_identity(const Place& at, int first_row, TileRow<D / 8>& s) {
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const int row = first_row + 2 * at.g + c / 2;
#pragma unroll
    for (int tile = 0; tile < D / 8; ++tile) {
      const int channel = 16 * (tile / 2) + 4 * at.t + 2 * (c % 2) + tile % 2;
      s[tile][c] = row == channel ? 1.0F : 0.0F;
    }
  }
}

}  // namespace vla_bench::mixers::cuda
