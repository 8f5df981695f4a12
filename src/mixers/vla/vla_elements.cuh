// What a segment makes of the A that enters it (12 of vla_chunked.h), as the kernels of
// vla_segments_cuda.h hold it.
#pragma once

#include "mixers/vla/vla_chunked.cuh"

namespace vla_bench::mixers::cuda {

/// Pivots of J below this share of its largest are left out: rounding, no direction.
constexpr float kLeastRoot = 1e-7F;

/// E, C and the rows of R^T, R R^T = J, (D, D) each, of element `number`.
template <int D>
struct ElementView {
  float *E, *C, *R;
  __device__ ElementView(float* elements, int number)
      : E(elements + static_cast<Index>(number) * 3 * D * D), C(E + D * D), R(C + D * D) {}
};

/// The lower triangle of a (D, D) matrix in 16 x 16 tiles, in the registers of a team of kWarps.
template <int D, int kWarps>
struct Accumulator {
  static constexpr int kTiles = D / 16 * (D / 16 + 1) / 2;
  static constexpr int kOwn = (kTiles + kWarps - 1) / kWarps;
  WarpTile<1, 2> own[kOwn];

  /// body(tile, row, column) for the tiles of this warp.
  template <class Body>
  __device__ void each(int rank, const Body& body) {
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      int row = 0, column = rank + n * kWarps;
      if (column >= kTiles) continue;
      while (column > row) column -= ++row;
      body(own[n], row, column);
    }
  }
};

/// R^T of R R^T = J into `out`, the largest pivot (to 16 bits of it) first, by a block. J's rows
/// are ChunkShape's kAlong apart; `rows` holds 2 D numbers, aligned to 16 bytes. What is left of J
/// lies in registers, a part of a row a thread, its diagonal in those of every warp: a step writes
/// the pivot's row, scaled, and takes its square off behind one barrier.
template <int D, int kThreads>
__device__ inline void find_root(const float* J, float* rows, float* out) {
  constexpr unsigned kAll = 0xFFFFFFFFU;
  constexpr int kOfJ = ChunkShape<D>::kAlong;
  constexpr int kColumns = D * D / kThreads < 4 ? 4 : D * D / kThreads;  // of a thread
  constexpr int kOfDiagonal = (D + 31) / 32;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int row = thread % D;
  const int first = thread / D * kColumns;
  const bool active = first < D;
  float left[kColumns], diagonal[kOfDiagonal];
#pragma unroll
  for (int j = 0; j < kColumns; ++j) left[j] = active ? J[row * kOfJ + first + j] : 0.0F;
#pragma unroll
  for (int n = 0; n < kOfDiagonal; ++n) {
    const int i = lane + 32 * n;
    diagonal[n] = i < D ? J[i * (kOfJ + 1)] : 0.0F;
  }
  float least = 0.0F;
  int step = 0;
  for (; step < D; ++step) {
    unsigned largest = 0;  // the high bits of a number, then its place
#pragma unroll
    for (int n = 0; n < kOfDiagonal; ++n) {
      const unsigned place = static_cast<unsigned>(lane + 32 * n);
      const unsigned bits = (__float_as_uint(diagonal[n]) & ~127U) | place;
      if (diagonal[n] > 0.0F) largest = max(largest, bits);
    }
    const int pivot_row = static_cast<int>(__reduce_max_sync(kAll, largest) & 127U);
    float pivot = 0.0F;
#pragma unroll
    for (int n = 0; n < kOfDiagonal; ++n) {
      const float candidate = __shfl_sync(kAll, diagonal[n], pivot_row % 32);
      if (n == pivot_row / 32) pivot = candidate;
    }
    if (step == 0) least = kLeastRoot * pivot;
    if (!(pivot > least)) break;
    float* of_pivot = rows + step % 2 * D;  // read until the next step's barrier
    if (active && row == pivot_row) {
      const float scale = inverse_root(pivot);
#pragma unroll
      for (int j = 0; j < kColumns; j += 4) {
        *reinterpret_cast<float4*>(of_pivot + first + j) = make_float4(
            scale * left[j], scale * left[j + 1], scale * left[j + 2], scale * left[j + 3]);
      }
    }
    __syncthreads();
    if (active) {
      const float own = of_pivot[row];
#pragma unroll
      for (int j = 0; j < kColumns; j += 4) {
        const float4 x = *reinterpret_cast<const float4*>(of_pivot + first + j);
        left[j] = fmaf(-own, x.x, left[j]);
        left[j + 1] = fmaf(-own, x.y, left[j + 1]);
        left[j + 2] = fmaf(-own, x.z, left[j + 2]);
        left[j + 3] = fmaf(-own, x.w, left[j + 3]);
      }
      if (first == 0) out[step * D + row] = own;
    }
#pragma unroll
    for (int n = 0; n < kOfDiagonal; ++n) {
      const int i = lane + 32 * n;
      const float x = i < D ? of_pivot[i] : 0.0F;
      // One that has been a pivot is none again.
      diagonal[n] = i == pivot_row ? -1.0F : fmaf(-x, x, diagonal[n]);
    }
  }
  for (int i = step * D + thread; i < D * D; i += kThreads) out[i] = 0.0F;
}

}  // namespace vla_bench::mixers::cuda
