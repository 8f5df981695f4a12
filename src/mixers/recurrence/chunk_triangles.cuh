// Cholesky factorisation of a chunk's Gram matrix M = L L^T (n, n), n = 16 times the number of
// blocks, in place and by blocks of 16: L below the diagonal blocks, on them their inverses
// (L_kk)^-1, which is what solving with L takes.
//
// A 16 x 16 block on the diagonal lies in one warp's registers, as an accumulator of mma m16n8k8.
// Its elimination is that of L D L^T, two pivots at a time, applied to I at once, whose columns
// take the place of the eliminated ones. Every thread finds the next two pivots for itself while
// the rows are on their way between threads, so that the chain of two pivots is two reciprocals and
// six multiplications. Off the diagonal everything is products of blocks X Y^T; an accumulator is
// an operand of the next one as it stands, if the order of the columns that are summed over is
// changed in both operands alike.
//
// One warp factorises up to 32 rows, without a barrier; more are shared by a block. Multiply-adds:
// n^3 / 6, and n 16^2 / 2 on the diagonal.
#pragma once

#include "mixers/recurrence/chunk_products.cuh"
#include "mixers/recurrence/lines.cuh"
#include "ops/cuda/approximate.cuh"

namespace vla_bench::mixers::cuda {

using ops::cuda::inverse_root;

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
  /// This, M, symmetric, to L^-1 of M = L L^T. `pivots` (16): the squares of L's diagonal before
  /// their floor. Unrolled it is faster by itself; as a loop where warps at other places of the
  /// kernel compete for the instruction cache.
  template <bool kUnrolled>
  __device__ void invert_factor(float floor, float* pivots);

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

template <bool kUnrolled>
__device__ inline void WarpBlock::invert_factor(float floor, float* pivots) {
  constexpr unsigned kAll = 0xFFFFFFFFU;
  using ops::cuda::reciprocal;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;  // the thread's rows are g and g + 8
  const int t = lane % 4;
  const float inverse_floor = reciprocal(floor);
  float own_pivot[2] = {};
  // The pivots of rows j and j + 1, and what lies below the first.
  float first = __shfl_sync(kAll, part[0][0], 0);
  float below = __shfl_sync(kAll, part[0][0], 4);
  float second = __shfl_sync(kAll, part[0][1], 4);
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll(kUnrolled ? 4 : 1)
    for (int pair = 0; pair < 4; ++pair) {  // j = 8 n + 2 pair
      const float inverse_first = first < floor ? inverse_floor : reciprocal(first);
      const float slope = below * inverse_first;
      second = fmaf(-slope, below, second);
      const float inverse_second = second < floor ? inverse_floor : reciprocal(second);
      if (g == 2 * pair) own_pivot[n] = first;
      if (g == 2 * pair + 1) own_pivot[n] = second;
      if (n == 0 || pair < 3) {
        // Rows j + 2 and j + 3: what they have of rows j and j + 1, and their own block. Those that
        // follow the last pair of a half lie in the other half.
        const bool here = pair < 3;
        const auto of = [&](int from_n, int e, int row, int column) {
          const float value = here ? part[n][2 * n + e] : part[from_n][2 + e];
          return __shfl_sync(kAll, value, (2 * pair + 2 + row) % 8 * 4 + column % 4);
        };
        const float a = of(0, 0, 0, pair), b = of(0, 0, 1, pair);
        const float c = fmaf(-slope, a, of(0, 1, 0, pair));
        const float d = fmaf(-slope, b, of(0, 1, 1, pair));
        const float scaled_a = a * inverse_first, scaled_b = b * inverse_first;
        const float next_first = fmaf(-scaled_a, a, of(1, 0, 0, pair + 1));
        const float next_below = fmaf(-scaled_a, b, of(1, 0, 1, pair + 1));
        const float next_second = fmaf(-scaled_b, b, of(1, 1, 1, pair + 1));
        first = fmaf(-c * c, inverse_second, next_first);
        below = fmaf(-c * d, inverse_second, next_below);
        second = fmaf(-d * d, inverse_second, next_second);
      }
      float of_first[2], of_second[2];  // what the thread's rows take of rows j and j + 1
#pragma unroll
      for (int h = n; h < 2; ++h) {
        const int source = 4 * g + pair;
        const float along_first = __shfl_sync(kAll, part[n][2 * h], source);
        const float along_second =
            fmaf(-slope, along_first, __shfl_sync(kAll, part[n][2 * h + 1], source));
        const bool is_below = h > n || g > 2 * pair + 1;
        of_second[h] = is_below ? -along_second * inverse_second : 0.0F;
        of_first[h] = is_below ? fmaf(-of_second[h], slope, -along_first * inverse_first) : 0.0F;
        if (h == n && g == 2 * pair + 1) of_first[h] = -slope;
      }
      const bool own_columns = t == pair;  // columns j and j + 1 become those of I
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float from_first = __shfl_sync(kAll, part[m][2 * n + c], 8 * pair + t);
          float from_second = __shfl_sync(kAll, part[m][2 * n + c], 8 * pair + 4 + t);
          if (m == n && own_columns) {
            from_first = c == 0 ? 1.0F : 0.0F;
            from_second = c == 1 ? 1.0F : 0.0F;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              part[m][2 * h + c] = h == n && g == 2 * pair + c ? 1.0F : 0.0F;
            }
          }
#pragma unroll
          for (int h = n; h < 2; ++h) {
            float& value = part[m][2 * h + c];
            value = fmaf(of_second[h], from_second, fmaf(of_first[h], from_first, value));
          }
        }
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float scale = inverse_root(at_least(own_pivot[h], floor));
#pragma unroll
    for (int e = 0; e < 4; ++e) part[e / 2][2 * h + e % 2] *= scale;
    if (t == 0) pivots[g + 8 * h] = own_pivot[h];
  }
}

/// Block (i, j) of M or L.
template <int kStride>
__device__ inline float* block_at(float* matrix, int i, int j) {
  return matrix + 16 * (i * kStride + j);
}

/// M of 16 or 32 rows, of which the lower triangle is read, to its factor, by one warp; above the
/// diagonal blocks nothing is written. `floor`: pivots below it are raised to it; `pivots` (n) are
/// those before.
template <int kBlocks, int kStride, bool kUnrolled = true>
__device__ inline void factorise(float* matrix, float floor, float* pivots) {
  static_assert(kBlocks <= 2);
#pragma unroll(kUnrolled ? kBlocks : 1)
  for (int k = 0; k < kBlocks; ++k) {
    float* diagonal = block_at<kStride>(matrix, k, k);
    WarpBlock block;
    block.load_symmetric<kStride>(diagonal);
    if (k > 0) {
      WarpBlock below, inverse, factor;
      below.load<kStride>(block_at<kStride>(matrix, 1, 0));
      inverse.load<kStride>(matrix);
      factor.add_product<false>(below, inverse);
      factor.store<kStride>(block_at<kStride>(matrix, 1, 0));
      block.add_product<true>(factor, factor);
    }
    block.invert_factor<kUnrolled>(floor, pivots + 16 * k);
    block.store<kStride>(diagonal);
    __syncwarp();
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
      WarpBlock diagonal;
      diagonal.load_symmetric<kStride>(at(k, k));
      if (k > 0) {
        WarpBlock factor;
        factor.load<kStride>(at(k, k - 1));
        diagonal.add_product<true>(factor, factor);
      }
      diagonal.invert_factor<true>(floor, pivots + 16 * k);
      diagonal.store<kStride>(at(k, k));
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
