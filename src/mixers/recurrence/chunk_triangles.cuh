// Cholesky factorisation of a chunk's Gram matrix M = L L^T (n, n), n = 16 times the number of
// blocks, and the inverse of its factor, in place: by blocks of 16, a block row a warp.
//
// A 16 x 16 block on the diagonal lies in one warp's registers, half a row a thread. Its
// elimination is that of L D L^T, applied to I at once, so that a pivot's chain is one reciprocal
// and one multiplication: the entries that the next pivot needs are on their way between threads
// while the reciprocal is taken. Off the diagonal everything is products of blocks X Y^T; an
// accumulator of mma m16n8k8 is an operand of the next one as it stands, if the order of the
// columns that are summed over is changed in both operands alike.
//
// Chain of a block: 16 pivots of about 45 cycles, two products of blocks, a barrier. Multiply-adds:
// n^3 / 6 for L and as many for its inverse, and n 16^2 / 2 on the diagonal.
#pragma once

#include "mixers/recurrence/chunk_products.cuh"
#include "mixers/recurrence/lines.cuh"
#include "ops/cuda/approximate.cuh"
#include "ops/cuda/named_barrier.cuh"

namespace vla_bench::mixers::cuda {

/// 1 / sqrt(x) for normal x: the hardware's approximation and one step of Newton's.
__device__ inline float inverse_root(float x) {
  const float y = rsqrtf(x);
  const float half = 0.5F * x * y;
  return fmaf(fmaf(-half, y, 0.5F), y, y);
}

/// 16 x 16 numbers of a warp, as an accumulator holds them: of the thread with g = lane / 4 and
/// t = lane % 4, part[n][0 .. 3] are (g, c), (g, c + 1), (g + 8, c), (g + 8, c + 1), c = 8 n + 2 t.
struct WarpBlock {
  float part[2][4] = {};

  template <int kStride>
  __device__ void load(const float* block) {
    const float* from = block + row() * kStride + column();
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 pair = *reinterpret_cast<const float2*>(from + 8 * half * kStride + 8 * n);
        part[n][2 * half] = pair.x;
        part[n][2 * half + 1] = pair.y;
      }
    }
  }
  template <int kStride>
  __device__ void store(float* block) const {
    float* to = block + row() * kStride + column();
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<float2*>(to + 8 * half * kStride + 8 * n) =
            make_float2(part[n][2 * half], part[n][2 * half + 1]);
      }
    }
  }
  template <int kStride>
  __device__ void load_transposed(const float* block) {
    each([&](int i, int j, float& value) { value = block[j * kStride + i]; });
  }
  template <int kStride>
  __device__ void store_transposed(float* block) {
    each([&](int i, int j, float& value) { block[j * kStride + i] = value; });
  }

  /// this += x y^T or, negative, this -= x y^T, at float32 grade. Small terms have an accumulator
  /// of their own: two chains of products in place of one.
  template <bool kNegative>
  __device__ void add_product(const WarpBlock& x, const WarpBlock& y) {
    WarpBlock small;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      constexpr float kSign = kNegative ? -1.0F : 1.0F;
      const float(&from)[4] = x.part[k];
      const auto a =
          left<Grade::float32>(kSign * from[0], kSign * from[2], kSign * from[1], kSign * from[3]);
      const Right<Grade::float32> b[2] = {right<Grade::float32>(y.part[k][0], y.part[k][1]),
                                          right<Grade::float32>(y.part[k][2], y.part[k][3])};
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        ops::cuda::multiply_add_tf32(small.part[n], a.low, b[n].high[0], b[n].high[1]);
        ops::cuda::multiply_add_tf32(part[n], a.high, b[n].high[0], b[n].high[1]);
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        ops::cuda::multiply_add_tf32(small.part[n], a.high, b[n].low[0], b[n].low[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) part[n][e] += small.part[n][e];
    }
  }

 private:
  __device__ static int row() { return static_cast<int>(threadIdx.x) % 32 / 4; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % 4 * 2; }
  template <class Body>
  __device__ void each(const Body& body) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) body(row() + e / 2 * 8, column() + 8 * n + e % 2, part[n][e]);
    }
  }
};

/// L^-1 of a 16 x 16 block in shared memory, of which the lower triangle is read, in its place, by
/// one warp. `pivots` (16): the squares of L's diagonal before their floor.
template <int kStride>
__device__ inline void invert_factor_of_block(float* block, float floor, float* pivots) {
  constexpr unsigned kAll = 0xFFFFFFFFU;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = lane / 2;
  const int half = lane % 2;  // the thread's columns are 2 c + half
  float m[8], x[8];           // a row of M, symmetric, and of what I becomes
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    const int column = 2 * c + half;
    m[c] = block[max(row, column) * kStride + min(row, column)];
    x[c] = row == column ? 1.0F : 0.0F;
  }
  __syncwarp();
  const float inverse_floor = 1.0F / floor;
  float pivot = __shfl_sync(kAll, m[0], 0);
  float own_pivot = pivot;
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    if (row == j) own_pivot = pivot;
    const float unfloored = ops::cuda::reciprocal(pivot);
    const float inverse = pivot < floor ? inverse_floor : unfloored;
    const float along = __shfl_sync(kAll, m[j / 2], lane - half + j % 2);
    if (j < 15) {
      const float across = __shfl_sync(kAll, m[j / 2], 2 * (j + 1) + j % 2);
      const float next = __shfl_sync(kAll, m[(j + 1) / 2], 2 * (j + 1) + (j + 1) % 2);
      pivot = fmaf(-across * across, inverse, next);
    }
    const float factor = row > j ? -along * inverse : 0.0F;
#pragma unroll
    for (int c = j / 2; c < 8; ++c) {
      m[c] = fmaf(factor, __shfl_sync(kAll, m[c], 2 * j + half), m[c]);
    }
#pragma unroll
    for (int c = 0; c <= j / 2; ++c) {
      x[c] = fmaf(factor, __shfl_sync(kAll, x[c], 2 * j + half), x[c]);
    }
  }
  const float scale = inverse_root(at_least(own_pivot, floor));
#pragma unroll
  for (int c = 0; c < 8; ++c) block[row * kStride + 2 * c + half] = x[c] * scale;
  if (half == 0) pivots[row] = own_pivot;
  __syncwarp();
}

/// L^-1 in place of M, in shared memory; of M the lower triangle is read, above the diagonal blocks
/// nothing is. Called by kBlocks warps, each with its rank among them; others may do something
/// else. `floor`: pivots below it are raised to it; `pivots` (n) are those before. Uses the named
/// barriers kBarrier and kBarrier + 1.
template <int kBlocks, int kStride, int kBarrier>
__device__ inline void invert_factor(float* matrix, float floor, float* pivots, int rank) {
  constexpr int kThreads = 32 * kBlocks;
  const auto at = [&](int i, int j) { return matrix + 16 * (i * kStride + j); };
  // What a block row waits for: its diagonal block's inverse; its first block beside it, in L.
  const auto wait_for_inverse = [] {
    if constexpr (kBlocks > 1) ops::cuda::sync_named(kBarrier, kThreads);
  };
  const auto wait_for_factor = [] { ops::cuda::sync_named(kBarrier + 1, kThreads); };

  {
    WarpBlock own[kBlocks > 1 ? kBlocks - 1 : 1], diagonal;  // this block row of M
    diagonal.load<kStride>(at(rank, rank));
#pragma unroll
    for (int j = 0; j + 1 < kBlocks; ++j) {
      if (j < rank) own[j].template load<kStride>(at(rank, j));
    }
#pragma unroll
    for (int k = 0; k + 1 < kBlocks; ++k) {
      if (k >= rank) continue;
      wait_for_inverse();
      WarpBlock inverse, factor;
      inverse.load<kStride>(at(k, k));
      factor.add_product<false>(own[k], inverse);
      factor.store<kStride>(at(rank, k));
      diagonal.add_product<true>(factor, factor);
      if (rank == k + 1) {
        ops::cuda::arrive_named(kBarrier + 1, kThreads);
        continue;
      }
      wait_for_factor();
#pragma unroll
      for (int j = k + 1; j + 1 < kBlocks; ++j) {
        if (j >= rank) continue;
        WarpBlock other;
        other.load<kStride>(at(j, k));
        own[j].template add_product<true>(factor, other);
      }
    }
    diagonal.store<kStride>(at(rank, rank));
    __syncwarp();
  }
  invert_factor_of_block<kStride>(at(rank, rank), floor, pivots + 16 * rank);
  wait_for_inverse();

  // Block column `rank` of the inverse, transposed: (L^-1)_kj = -(L^-1)_kk sum_m L_km (L^-1)_mj.
  WarpBlock column[kBlocks];
#pragma unroll
  for (int k = 0; k < kBlocks; ++k) {
    if (k == rank) column[k].template load_transposed<kStride>(at(k, k));
    if (k <= rank) continue;
    wait_for_factor();
    WarpBlock sum, inverse;
#pragma unroll
    for (int m = 0; m < k; ++m) {
      if (m < rank) continue;
      WarpBlock factor;
      factor.load<kStride>(at(k, m));
      sum.add_product<false>(column[m], factor);
    }
    wait_for_inverse();
    inverse.load<kStride>(at(k, k));
    column[k] = {};
    column[k].template add_product<true>(sum, inverse);
    column[k].template store_transposed<kStride>(at(k, rank));
  }
}

}  // namespace vla_bench::mixers::cuda
