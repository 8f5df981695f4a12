// Cholesky factorisation of a chunk's Gram matrix M = L L^T (n, n), n = 16 times the number of
// blocks, in place and by blocks of 16: L below the diagonal blocks, on them their inverses
// (L_kk)^-1, which is what solving with L takes.
//
// The elimination of a 16 x 16 block on the diagonal is that of L D L^T, applied to I at once, by
// one warp: a thread has a column of M or of I. The multipliers of a pivot, which lie in its
// column, go from there to all threads while its reciprocal is found, and every thread finds the
// next pivot for itself: the chain of a pivot is one reciprocal and one multiply-add. Off the
// diagonal everything is products of blocks X Y^T; an accumulator of mma m16n8k8 is an operand of
// the next one as it stands, if the order of the columns that are summed over is changed in both
// alike.
//
// One warp factorises up to 32 rows, without a barrier; more are shared by a block. Multiply-adds:
// n^3 / 6, and n 16^2 / 2 on the diagonal.
#pragma once

#include "mixers/recurrence/chunk_products.cuh"
#include "mixers/recurrence/lines.cuh"
#include "ops/cuda/approximate.cuh"

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

  /// this += x y^T or, negative, this -= x y^T, at float32 grade. Every term has a sum of its own:
  /// a sum's chain of additions is what a warp waits for.
  template <bool kNegative>
  __device__ void add_product(const WarpBlock& x, const WarpBlock& y) {
    float high[2][4], low_high[2][4], high_low[2][4];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const float(&from)[4] = x.part[k];
      const auto a = left<Grade::float32>(from[0], from[2], from[1], from[3]);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const auto b = right<Grade::float32>(y.part[k][2 * n], y.part[k][2 * n + 1]);
        const auto add = [&](float(&c)[4], const std::uint32_t(&i)[4], const std::uint32_t(&j)[2]) {
          if (k == 0) {
            ops::cuda::multiply_tf32(c, i, j[0], j[1]);
          } else {
            ops::cuda::multiply_add_tf32(c, i, j[0], j[1]);
          }
        };
        add(high[n], a.high, b.high);
        add(low_high[n], a.low, b.high);
        add(high_low[n], a.high, b.low);
      }
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float sum = high[n][e] + (low_high[n][e] + high_low[n][e]);
        part[n][e] = kNegative ? part[n][e] - sum : part[n][e] + sum;
      }
    }
  }

  /// Of a symmetric block of which the lower triangle stands there.
  template <int kStride>
  __device__ void load_symmetric(const float* block) {
    each([&](int i, int j, float& value) { value = block[max(i, j) * kStride + min(i, j)]; });
    __syncwarp();  // threads read what others hold, and may write there next
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

/// A symmetric 16 x 16 block M = L L^T, of which the lower triangle is read, to L^-1, in place, by
/// one warp. `pivots` (16): the squares of L's diagonal before their floor.
template <int kStride>
__device__ inline void invert_factor(float* block, float floor, float* pivots) {
  constexpr unsigned kAll = 0xFFFFFFFFU;
  using ops::cuda::reciprocal;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int column = lane % 16;
  const bool of_identity = lane >= 16;
  float x[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const float of_block = block[max(i, column) * kStride + min(i, column)];
    x[i] = of_identity ? static_cast<float>(i == column) : of_block;
  }
  __syncwarp();  // before another thread writes there

  const float inverse_floor = reciprocal(floor);
  float own_pivot = 0.0F;  // of the thread's column
  float pivot = __shfl_sync(kAll, x[0], 0);
  float coming = __shfl_sync(kAll, x[1], 1);  // what row p + 1 has on the diagonal
#pragma unroll
  for (int p = 0; p < 16; ++p) {
    const float inverse = pivot < floor ? inverse_floor : reciprocal(pivot);
    if (column == p) own_pivot = pivot;
    if (p == 15) break;
    const float of_row = x[p] * inverse;
    const float below = __shfl_sync(kAll, x[p + 1], p);
    pivot = fmaf(-below * below, inverse, coming);
    x[p + 1] = fmaf(-below, of_row, x[p + 1]);
#pragma unroll
    for (int i = p + 2; i < 16; ++i) {
      x[i] = fmaf(-__shfl_sync(kAll, x[i], p), of_row, x[i]);
      if (i == p + 2) coming = __shfl_sync(kAll, x[i], i);
    }
  }
  const float scale = inverse_root(at_least(own_pivot, floor));
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const float of_row = __shfl_sync(kAll, scale, i);
    if (of_identity) block[i * kStride + column] = of_row * x[i];
  }
  if (!of_identity) pivots[column] = own_pivot;
  __syncwarp();
}

/// Block (i, j) of M or L.
template <int kStride>
__device__ inline float* block_at(float* matrix, int i, int j) {
  return matrix + 16 * (i * kStride + j);
}

/// M of 16 or 32 rows, of which the lower triangle is read, to its factor, by one warp; above the
/// diagonal blocks nothing is written. `floor`: pivots below it are raised to it; `pivots` (n) are
/// those before.
template <int kBlocks, int kStride>
__device__ inline void factorise(float* matrix, float floor, float* pivots) {
  static_assert(kBlocks <= 2);
  invert_factor<kStride>(matrix, floor, pivots);
  if constexpr (kBlocks == 2) {
    float* below = block_at<kStride>(matrix, 1, 0);
    float* diagonal = block_at<kStride>(matrix, 1, 1);
    WarpBlock block, rest, inverse, factor;
    block.load_symmetric<kStride>(diagonal);
    rest.load<kStride>(below);
    inverse.load<kStride>(matrix);
    factor.add_product<false>(rest, inverse);
    factor.store<kStride>(below);
    block.add_product<true>(factor, factor);
    block.store<kStride>(diagonal);
    __syncwarp();
    invert_factor<kStride>(diagonal, floor, pivots + 16);
  }
}

/// The same for any number of blocks by a block of kWarps warps, all of which call it. beside(k) is
/// work for all warps but the first, for k = 0 .. kBlocks - 1 in turn, while the first inverts
/// diagonal block k. Ends with a barrier.
template <int kBlocks, int kStride, int kWarps, class Beside>
__device__ inline void factorise_together(float* matrix, float floor, float* pivots, int warp,
                                          const Beside& beside) {
  static_assert(kBlocks <= kWarps);
  const auto at = [&](int i, int j) { return block_at<kStride>(matrix, i, j); };
#pragma unroll 1
  for (int k = 0; k < kBlocks; ++k) {
    // Column k - 1 of L is there; the blocks behind it have not been reduced by it.
    if (warp == 0) {
      if (k > 0) {
        WarpBlock diagonal, factor;
        diagonal.load_symmetric<kStride>(at(k, k));
        factor.load<kStride>(at(k, k - 1));
        diagonal.add_product<true>(factor, factor);
        diagonal.store<kStride>(at(k, k));
        __syncwarp();
      }
      invert_factor<kStride>(at(k, k), floor, pivots + 16 * k);
    } else {
      const int left = kBlocks - k;
      for (int number = warp; k > 0 && number < left * (left + 1) / 2; number += kWarps - 1) {
        int i = 0, j = number;
        while (j > i) j -= ++i;
        WarpBlock rest, x, y;
        rest.load<kStride>(at(k + i, k + j));
        x.load<kStride>(at(k + i, k - 1));
        y.load<kStride>(at(k + j, k - 1));
        rest.add_product<true>(x, y);
        rest.store<kStride>(at(k + i, k + j));
      }
      beside(k);
    }
    __syncthreads();
    if (k + 1 == kBlocks) break;
    if (k + 1 + warp < kBlocks) {
      WarpBlock rest, inverse, factor;
      rest.load<kStride>(at(k + 1 + warp, k));
      inverse.load<kStride>(at(k, k));
      factor.add_product<false>(rest, inverse);
      factor.store<kStride>(at(k + 1 + warp, k));
    }
    __syncthreads();
  }
}

/// X <- X L^-T for 16 rows of X, by one warp: block k holds the columns 16 k .. 16 k + 15.
template <int kBlocks, int kStride>
__device__ inline void divide_by_factor(WarpBlock (&x)[kBlocks], float* factor) {
#pragma unroll
  for (int k = 0; k < kBlocks; ++k) {
    WarpBlock inverse, quotient;
    inverse.load<kStride>(block_at<kStride>(factor, k, k));
    quotient.add_product<false>(x[k], inverse);
    x[k] = quotient;
#pragma unroll
    for (int i = k + 1; i < kBlocks; ++i) {
      WarpBlock below;
      below.load<kStride>(block_at<kStride>(factor, i, k));
      x[i].template add_product<true>(quotient, below);
    }
  }
}

}  // namespace vla_bench::mixers::cuda
