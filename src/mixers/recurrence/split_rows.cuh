// Operands of 3xTF32 products that stay where they are: rows in shared memory, split into high and
// low once by whoever writes them, and accumulators, which are left operands as they stand.
//
// The inner indices of an instruction come in another order, in both operands alike: of eight of
// them thread t of four has 2 t and 2 t + 1, which lie side by side, in the place of t and t + 4.
#pragma once

#include "mixers/recurrence/chunk_products.cuh"

namespace vla_bench::mixers::cuda {

/// An operand's word in a grade: of TF32 the instruction cuts the last 13 bits off. A factor of 1 +
/// 0.3466 2^-10 before that makes errors of both signs alike on average, at most 0.7 of a last
/// place (to nearest: 0.5), and is one instruction where cvt.rna is three. NaN stays NaN.
__device__ inline float nearly_round_to_tf32(float x) { return x * 1.00033848F; }

/// What a thread holds of a tile of 8 columns: `column` and the next, of `row` and, where there are
/// 16 rows, of row + 8.
struct TilePlace {
  int row = static_cast<int>(threadIdx.x) % 32 / 4;
  int column = static_cast<int>(threadIdx.x) % 4 * 2;
};

/// Operands from neighbours x (first row) and y (eight rows below).
template <Grade kGrade>
__device__ inline Left<kGrade> left_pairs(float2 x, float2 y) {
  if constexpr (kGrade == Grade::float32) return left<kGrade>(x.x, y.x, x.y, y.y);
  return {{__float_as_uint(nearly_round_to_tf32(x.x)), __float_as_uint(nearly_round_to_tf32(y.x)),
           __float_as_uint(nearly_round_to_tf32(x.y)), __float_as_uint(nearly_round_to_tf32(y.y))},
          {}};
}
template <Grade kGrade>
__device__ inline Right<kGrade> right_pair(float2 x) {
  if constexpr (kGrade == Grade::float32) return right<kGrade>(x.x, x.y);
  return {{__float_as_uint(nearly_round_to_tf32(x.x)), __float_as_uint(nearly_round_to_tf32(x.y))},
          {}};
}

/// Rows as they are, kStride numbers apart; loads meet no bank twice where that is 8 modulo 32. A
/// step is of 8 inner indices.
template <int kStride>
struct PlainRows {
  const float* data;

  template <Grade kGrade>
  __device__ Left<kGrade> left(int row, int step) const {
    return left_pairs<kGrade>(pair(row, step), pair(row + 8, step));
  }
  template <Grade kGrade>
  __device__ Right<kGrade> right(int row, int step) const {
    return right_pair<kGrade>(pair(row, step));
  }

 private:
  __device__ float2 pair(int row, int step) const {
    const TilePlace at;
    return *reinterpret_cast<const float2*>(data + at.row * kStride + at.column + row * kStride +
                                            8 * step);
  }
};

/// Rows of kColumns numbers, split: of columns 2 p and 2 p + 1 a quad {high, high, low, low}. In
/// rows r with r + r / 2 odd the quads of columns 16 m .. 16 m + 7 and 16 m + 8 .. 16 m + 15 change
/// places, so that eight rows meet no bank twice, along and (twice at most) across them. Rows and
/// columns that are named as arguments are multiples of 8, the thread's place is added.
template <int kColumns>
struct SplitRows {
  static constexpr int kStride = 2 * kColumns;
  float* data;

  /// Two neighbours of column 8 step + TilePlace::column, of row + TilePlace::row.
  __device__ void put(int row, int step, float x, float y) const { store(along(row, step), x, y); }
  /// The same at any place, the column even.
  __device__ void put_at(int row, int column, float x, float y) const {
    store(data + row * kStride + 4 * (column / 2 ^ (row ^ row / 2) % 2 * 4), x, y);
  }

  template <Grade kGrade>
  __device__ Left<kGrade> left(int row, int step) const {
    const uint4 x = load(along(row, step));
    const uint4 y = load(along(row + 8, step));
    if constexpr (kGrade == Grade::float32) return {{x.x, y.x, x.y, y.y}, {x.z, y.z, x.w, y.w}};
    return {{x.x, y.x, x.y, y.y}, {}};
  }
  template <Grade kGrade>
  __device__ Right<kGrade> right(int row, int step) const {
    const uint4 x = load(along(row, step));
    if constexpr (kGrade == Grade::float32) return {{x.x, x.y}, {x.z, x.w}};
    return {{x.x, x.y}, {}};
  }
  /// Of the transposed rows: inner indices are rows, columns start at that of the tile pair, a
  /// multiple of 16, and half, 0 or 1.
  template <Grade kGrade>
  __device__ Right<kGrade> right_across(int step, int column, int half) const {
    const float* x = across(8 * step, 0, column, half);
    const float* y = across(8 * step, 1, column, half);
    if constexpr (kGrade == Grade::float32) {
      return {{__float_as_uint(x[0]), __float_as_uint(y[0])},
              {__float_as_uint(x[2]), __float_as_uint(y[2])}};
    }
    return {{__float_as_uint(x[0]), __float_as_uint(y[0])}, {}};
  }
  /// The number of row + TilePlace::column + next and column + 8 half + TilePlace::row; exact.
  __device__ float transposed(int row, int next, int column, int half) const {
    const float* x = across(row, next, column, half);
    return x[0] + x[2];
  }

 private:
  // The thread's part of an address and a constant.
  __device__ float* along(int row, int step) const {
    const TilePlace at;
    const int swap = (at.row ^ at.row / 2) % 2 * 16;
    return data + (at.row * kStride + 2 * at.column + (step % 2 == 0 ? swap : -swap)) +
           row * kStride + 16 * step;
  }
  __device__ float* across(int row, int next, int column, int half) const {
    const TilePlace at;
    const int swap = (at.column / 2 ^ next) % 2 * 16;
    return data +
           (at.column * kStride + 2 * (at.row & ~1) + at.row % 2 + (half == 0 ? swap : -swap)) +
           (row + next) * kStride + 2 * column + 16 * half;
  }
  __device__ static uint4 load(const float* quad) { return *reinterpret_cast<const uint4*>(quad); }
  __device__ static void store(float* quad, float x, float y) {
    const auto pair = right_pair<Grade::float32>(make_float2(x, y));
    *reinterpret_cast<uint4*>(quad) =
        make_uint4(pair.high[0], pair.high[1], pair.low[0], pair.low[1]);
  }
};

/// 16 rows and 8 N columns in a warp's registers, as accumulators: values[n] of the thread are
/// those of its rows and columns (TilePlace) of tile n, row by row.
template <int N>
struct RowTiles {
  float values[N][4];

  /// Columns 8 n .. 8 n + 7 as a left operand.
  template <Grade kGrade>
  __device__ Left<kGrade> left(int n) const {
    const float(&x)[4] = values[n];
    return left_pairs<kGrade>(make_float2(x[0], x[1]), make_float2(x[2], x[3]));
  }
  /// body(row, column, value) for the thread's numbers, rows counted from `first_row`.
  template <class Body>
  __device__ void each(int first_row, const Body& body) {
    const TilePlace at;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        body(first_row + at.row + e / 2 * 8, 8 * n + at.column + e % 2, values[n][e]);
      }
    }
  }
};

/// The product of 16 rows with 8 N columns over kSteps times 8 inner indices: left_at(step),
/// right_at(n, step) are its operands, wanted(n, step) whether there are any (step 0 always). The
/// three terms of grade float32 have a sum each, and those of (low high) and (high low) are added
/// first: where the operands are the same rows, the product is symmetric to the last bit.
template <Grade kGrade, int N, int kSteps, class LeftAt, class RightAt, class Wanted>
__device__ inline RowTiles<N> row_product(const LeftAt& left_at, const RightAt& right_at,
                                          const Wanted& wanted) {
  RowTiles<N> sum, low_high, high_low;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const auto add = [&](float(&c)[4], const std::uint32_t(&i)[4], const std::uint32_t(&j)[2]) {
      if (step == 0) {
        ops::cuda::multiply_tf32(c, i, j[0], j[1]);
      } else {
        ops::cuda::multiply_add_tf32(c, i, j[0], j[1]);
      }
    };
    const Left<kGrade> i = left_at(step);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      if (!wanted(n, step)) continue;
      const Right<kGrade> j = right_at(n, step);
      add(sum.values[n], i.high, j.high);
      if constexpr (kGrade == Grade::float32) {
        add(low_high.values[n], i.low, j.high);
        add(high_low.values[n], i.high, j.low);
      }
    }
  }
  if constexpr (kGrade == Grade::float32) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sum.values[n][e] += low_high.values[n][e] + high_low.values[n][e];
      }
    }
  }
  return sum;
}
template <Grade kGrade, int N, int kSteps, class LeftAt, class RightAt>
__device__ inline RowTiles<N> row_product(const LeftAt& left_at, const RightAt& right_at) {
  return row_product<kGrade, N, kSteps>(left_at, right_at, [](int, int) { return true; });
}

}  // namespace vla_bench::mixers::cuda
