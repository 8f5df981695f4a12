// Products of the chunked kernels on tensor cores, in fragments of ops/cuda/tensor_core.cuh: one
// instruction is C (16, 8) += A (16, 8) B (8, 8) by a warp.
//
// Grade float32 is 3xTF32: x = high + low, both TF32, and a product is low high + high low + high
// high, with an error of 2^-22 of its operands instead of 2^-11. Sums are float32 in both grades.
// Every sum has one fixed order.
#pragma once

#include "mixers/recurrence/chunked_cuda.h"
#include "ops/cuda/tensor_core.cuh"

namespace vla_bench::mixers::cuda {

/// A thread's share of an operand, rounded: N = 4 numbers of the left one, 2 of the right one.
template <Grade kGrade, int N>
struct Fragment {
  std::uint32_t high[N];
  std::uint32_t low[kGrade == Grade::float32 ? N : 1];

  __device__ void set(int i, float x) {
    if constexpr (kGrade == Grade::float32) {
      // A NaN may become a number here; `low` keeps it. What the instruction cuts off of `low` is
      // below 2^-22 of x.
      high[i] = (__float_as_uint(x) + 0x1000U) & 0xFFFFE000U;
      low[i] = __float_as_uint(x - __uint_as_float(high[i]));
    } else {
      high[i] = ops::cuda::round_to_tf32(x);
    }
  }
};
template <Grade kGrade>
using Left = Fragment<kGrade, 4>;
template <Grade kGrade>
using Right = Fragment<kGrade, 2>;

template <Grade kGrade>
__device__ inline Left<kGrade> left(float a0, float a1, float a2, float a3) {
  Left<kGrade> a;
  a.set(0, a0);
  a.set(1, a1);
  a.set(2, a2);
  a.set(3, a3);
  return a;
}
template <Grade kGrade>
__device__ inline Right<kGrade> right(float b0, float b1) {
  Right<kGrade> b;
  b.set(0, b0);
  b.set(1, b1);
  return b;
}

template <Grade kGrade>
__device__ inline void multiply_add(float (&c)[4], const Left<kGrade>& a, const Right<kGrade>& b) {
  if constexpr (kGrade == Grade::float32) {
    ops::cuda::multiply_add_tf32(c, a.low, b.high[0], b.high[1]);
    ops::cuda::multiply_add_tf32(c, a.high, b.low[0], b.low[1]);
  }
  ops::cuda::multiply_add_tf32(c, a.high, b.high[0], b.high[1]);
}

/// Element (i, j) stands at data[i * row + j * column], in shared memory.
struct Matrix {
  float* data;
  int row, column;

  __device__ float& operator()(int i, int j) const { return data[i * row + j * column]; }
  __device__ Matrix transposed() const { return {data, column, row}; }
  __device__ Matrix from(int i, int j) const { return {&(*this)(i, j), row, column}; }
};

/// Inner indices from first to end, multiples of 16, that a tile of the product needs.
struct InnerRange {
  int first, end;
};

/// A tile of 16 R rows and 8 S columns of a product, in the registers of a warp.
template <int R, int S>
struct WarpTile {
  float values[R][S][4] = {};

  /// += A B of the inner indices in `inner`; the tile's rows are A's first, its columns B's.
  template <Grade kGrade>
  __device__ void add_product(const Matrix& a, const Matrix& b, InnerRange inner) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    const int t = static_cast<int>(threadIdx.x) % 4;
    // The next operands are on their way while these are multiplied.
    float x[R][4], y[S][2], next_x[R][4], next_y[S][2];
    const auto load = [&](int k, float(&to_x)[R][4], float(&to_y)[S][2]) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < 4; ++e) to_x[r][e] = a(16 * r + g + e % 2 * 8, k + t + e / 2 * 4);
      }
#pragma unroll
      for (int s = 0; s < S; ++s) {
#pragma unroll
        for (int e = 0; e < 2; ++e) to_y[s][e] = b(k + t + e * 4, 8 * s + g);
      }
    };
    const auto multiply = [&](const float(&of_x)[R][4], const float(&of_y)[S][2]) {
      Left<kGrade> x_rounded[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        x_rounded[r] = left<kGrade>(of_x[r][0], of_x[r][1], of_x[r][2], of_x[r][3]);
      }
      Right<kGrade> y_rounded[S];
#pragma unroll
      for (int s = 0; s < S; ++s) y_rounded[s] = right<kGrade>(of_y[s][0], of_y[s][1]);
      const auto add = [&](const auto& term) {
#pragma unroll
        for (int s = 0; s < S; ++s) {
#pragma unroll
          for (int r = 0; r < R; ++r) term(values[r][s], x_rounded[r], y_rounded[s]);
        }
      };
      using ops::cuda::multiply_add_tf32;
      // A sum's next term comes after those of all others: an addition takes 18 cycles.
      if constexpr (kGrade == Grade::float32) {
        add([](auto& c, const auto& i, const auto& j) {
          multiply_add_tf32(c, i.low, j.high[0], j.high[1]);
        });
        add([](auto& c, const auto& i, const auto& j) {
          multiply_add_tf32(c, i.high, j.low[0], j.low[1]);
        });
      }
      add([](auto& c, const auto& i, const auto& j) {
        multiply_add_tf32(c, i.high, j.high[0], j.high[1]);
      });
    };
    load(inner.first, x, y);
#pragma unroll 1
    for (int k = inner.first; k < inner.end; k += 16) {
      load(k + 8, next_x, next_y);
      multiply(x, y);
      if (k + 16 < inner.end) load(k + 16, x, y);
      multiply(next_x, next_y);
    }
  }
  __device__ void add(const WarpTile& other) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int s = 0; s < S; ++s) {
#pragma unroll
        for (int e = 0; e < 4; ++e) values[r][s][e] += other.values[r][s][e];
      }
    }
  }
  /// done(i, j, value_ij, value_ij+1) with the tile's first element at (row, column).
  template <class Done>
  __device__ void each_pair(int row, int column, const Done& done) const {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int s = 0; s < S; ++s) {
        const int i = row + 16 * r + g;
        const int j = column + 8 * s + 2 * t;
        done(i, j, values[r][s][0], values[r][s][1]);
        done(i + 8, j, values[r][s][2], values[r][s][3]);
      }
    }
  }
};

/// C (M, N) = A (M, K) B (K, N) by kWarps warps: tiles of 16 R rows and 8 S columns, tile i by warp
/// i % kWarps. range(i, j) is the InnerRange of the tile whose first element is (i, j), an empty
/// one leaves the tile out; done(i, j, c_ij, c_ij+1) takes the product two neighbours at a time. No
/// barrier inside. Loads meet no bank twice where the stride along K's rows (A's rows, B's columns
/// if those are K-contiguous) is 4 modulo 32, and 8 modulo 32 for an operand whose other index is
/// contiguous.
template <Grade kGrade, int M, int N, int K, int kWarps, int R, int S, class Range, class Done>
__device__ inline void multiply(int warp, const Matrix& a, const Matrix& b, const Range& range,
                                const Done& done) {
  constexpr int kAcross = N / (8 * S);
  constexpr int kTiles = M / (16 * R) * kAcross;
  static_assert(M % (16 * R) == 0 && N % (8 * S) == 0 && K % 8 == 0);
#pragma unroll 1
  for (int tile = warp; tile < kTiles; tile += kWarps) {
    const int row = tile / kAcross * 16 * R;
    const int column = tile % kAcross * 8 * S;
    const InnerRange inner = range(row, column);
    if (inner.first >= inner.end) continue;
    WarpTile<R, S> c;
    c.template add_product<kGrade>(a.from(row, 0), b.from(0, column), inner);
    c.each_pair(row, column, done);
  }
}
/// The same over all of K.
template <Grade kGrade, int M, int N, int K, int kWarps, int R, int S, class Done>
__device__ inline void multiply(int warp, const Matrix& a, const Matrix& b, const Done& done) {
  multiply<kGrade, M, N, K, kWarps, R, S>(
      warp, a, b,
      [](int, int) {
        return InnerRange{0, K};
      },
      done);
}

}  // namespace vla_bench::mixers::cuda
