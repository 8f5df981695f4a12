// Products of small matrices on the CPU: C = start + A B with contiguous rows of B and C, and A
// read one element at a time, in either orientation. Elements of C are summed in registers, in the
// order of the inner index.
#pragma once

#include <type_traits>

#include "core/vectors.h"

namespace vla_bench {

struct ProductSizes {
  Index rows;
  Index inner;  // what is summed over
  Index columns;
};

/// The left operand: element (r, m) is at data[r * row + m * inner].
template <class T>
struct LeftOperand {
  const T* data;
  Index row, inner;
};

/// Contiguous rows, `stride` apart.
template <class T>
struct RowsOperand {
  T* data;
  Index stride;

  T* at(Index row, Index column) const { return data + row * stride + column; }
};

/// What a product computes with: vectors, or single elements for the columns behind the last
/// vector.
template <class T>
struct VectorLanes {
  using Value = Vector<T>;
  static constexpr Index kWidth = kVectorLength<T>;
  static Value read(const T* from) { return load(from); }
  static void write(T* to, Value value) { store(to, value); }
  static Value repeat(T value) { return broadcast(value); }
};
template <class T>
struct SingleLane {
  using Value = T;
  static constexpr Index kWidth = 1;
  static Value read(const T* from) { return *from; }
  static void write(T* to, Value value) { *to = value; }
  static Value repeat(T value) { return value; }
};

/// Rows of C computed together: with four vectors of each, and of B's row, they fill the 32
/// registers of AVX-512 or the 16 of narrower vectors.
template <class T>
inline constexpr int kProductRows = sizeof(Vector<T>) == 64 ? 6 : 3;

/// R rows and N Lanes of columns, from `row` and `column` on.
template <class Lanes, int R, int N, class T, class Start>
inline void product_block(Index inner, const LeftOperand<T>& left,
                          const RowsOperand<const T>& right, const RowsOperand<T>& result,
                          const Start& start, Index row, Index column) {
  typename Lanes::Value sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[r][n] = start(Lanes(), row + r, column + n * Lanes::kWidth);
  }
  const T* a = left.data + row * left.row;
  for (Index m = 0; m < inner; ++m) {
    typename Lanes::Value b[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) b[n] = Lanes::read(right.at(m, column + n * Lanes::kWidth));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto factor = Lanes::repeat(a[r * left.row + m * left.inner]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] += factor * b[n];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      Lanes::write(result.at(row + r, column + n * Lanes::kWidth), sum[r][n]);
    }
  }
}

/// C_rc = start(lanes, r, c) + sum_m A_rm B_mc, where `start` gives the Lanes::Value of the columns
/// from c on. R rows are computed together; the rest, if `rows` is no multiple of R, one by one.
template <class T, int R = kProductRows<T>, class Start>
void tile_product(const ProductSizes& sizes, const LeftOperand<T>& left,
                  const RowsOperand<const T>& right, const RowsOperand<T>& result,
                  const Start& start) {
  const auto columns = [&]<class Lanes, int N>(Lanes, std::integral_constant<int, N>,
                                               Index column) {
    Index row = 0;
    for (; row + R <= sizes.rows; row += R) {
      product_block<Lanes, R, N>(sizes.inner, left, right, result, start, row, column);
    }
    for (; row < sizes.rows; ++row) {
      product_block<Lanes, 1, N>(sizes.inner, left, right, result, start, row, column);
    }
  };
  const Index whole = sizes.columns / kVectorLength<T> * kVectorLength<T>;
  for_column_blocks<T>(whole, [&]<int N>(Index column) {
    columns(VectorLanes<T>(), std::integral_constant<int, N>(), column);
  });
  for (Index column = whole; column < sizes.columns; ++column) {
    columns(SingleLane<T>(), std::integral_constant<int, 1>(), column);
  }
}

/// C = A B.
template <class T, int R = kProductRows<T>>
void tile_product(const ProductSizes& sizes, const LeftOperand<T>& left,
                  const RowsOperand<const T>& right, const RowsOperand<T>& result) {
  tile_product<T, R>(sizes, left, right, result,
                     [](auto lanes, Index, Index) { return lanes.repeat(T(0)); });
}

/// C += A B.
template <class T, int R = kProductRows<T>>
void add_tile_product(const ProductSizes& sizes, const LeftOperand<T>& left,
                      const RowsOperand<const T>& right, const RowsOperand<T>& result) {
  tile_product<T, R>(sizes, left, right, result, [&](auto lanes, Index row, Index column) {
    return lanes.read(result.at(row, column));
  });
}

}  // namespace vla_bench
