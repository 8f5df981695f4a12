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

/// Row and column of every thread's part in find_root: kParts threads share a row.
template <int D, int kThreads>
struct RootShape {
  static constexpr int kActive = kThreads < 4 * D ? kThreads : 4 * D;  // threads
  static constexpr int kParts = kActive / D;
  static constexpr int kRows = 32 / kParts;  // of a warp
  static constexpr int kStride = D + kRows;  // of R's rows: no bank twice
};
/// The place of the largest of D numbers, to 16 bits of it, by a warp; D - 1 or less.
template <int D>
__device__ inline int place_of_largest(const float* numbers) {
  unsigned largest = 0;  // the high bits of a number, then its place
  for (int i = static_cast<int>(threadIdx.x) % 32; i < D; i += 32) {
    const unsigned bits = (__float_as_uint(numbers[i]) & ~127U) | static_cast<unsigned>(i);
    if (numbers[i] > 0.0F) largest = max(largest, bits);
  }
  return static_cast<int>(__reduce_max_sync(0xFFFFFFFFU, largest) & 127U);
}
/// R^T of R R^T = J into `out`, the largest pivot first, by a block. J's rows are ChunkShape's
/// kAlong apart; R holds D rows of RootShape's stride, `diagonals` 2 D numbers. A row of R^T a
/// step: a thread sums a part of one row's product with the pivot's.
template <int D, int kThreads>
__device__ inline void find_root(const float* J, float* R, float* diagonals, float* out) {
  using Shape = RootShape<D, kThreads>;
  constexpr int kStride = Shape::kStride;
  constexpr int kOfJ = ChunkShape<D>::kAlong;
  const int thread = static_cast<int>(threadIdx.x);
  const bool active = thread < Shape::kActive;
  const int part = thread % 32 / Shape::kRows;
  const int row = thread / 32 * Shape::kRows + thread % Shape::kRows;
  if (active && part == 0) diagonals[row] = J[row * (kOfJ + 1)];
  __syncthreads();
  float least = 0.0F;
  int column = 0;
  for (; column < D; ++column) {
    const float* diagonal = diagonals + column % 2 * D;
    float* next = diagonals + (column + 1) % 2 * D;
    const int pivot_row = place_of_largest<D>(diagonal);
    const float pivot = diagonal[pivot_row];
    if (column == 0) least = kLeastRoot * pivot;
    if (!(pivot > least)) break;
    if (active) {
      float sum = 0.0F;
#pragma unroll 4
      for (int k = part; k < column; k += Shape::kParts) {
        sum = fmaf(R[k * kStride + pivot_row], R[k * kStride + row], sum);
      }
#pragma unroll
      for (int offset = Shape::kRows; offset < 32; offset *= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFFU, sum, offset);
      }
      if (part == 0) {
        const float left = diagonal[row];
        const bool done = !(left > 0.0F);  // it has been a pivot; or nothing is left of it
        const bool is_pivot = row == pivot_row;
        const float value = J[pivot_row * kOfJ + row] - sum;
        const float x = done ? 0.0F : inverse_root(pivot) * (is_pivot ? pivot : value);
        R[column * kStride + row] = x;
        out[column * D + row] = x;
        next[row] = done || is_pivot ? -1.0F : fmaf(-x, x, left);
      }
    }
    __syncthreads();
  }
  for (int i = column * D + thread; i < D * D; i += kThreads) out[i] = 0.0F;
}

}  // namespace vla_bench::mixers::cuda
