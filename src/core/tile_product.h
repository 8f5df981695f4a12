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

/// How a product reads and writes its columns: in whole vectors, and after the last of them in a
/// vector's first elements, or one by one where a vector cannot be read in part.
template <class T>
struct WholeVectors {
  static constexpr Index kWidth = kVectorLength<T>;
  Vector<T> read(const T* from) const { return load(from); }
  void write(T* to, Vector<T> value) const { store(to, value); }
  Vector<T> repeat(T value) const { return broadcast(value); }
};
template <class T>
struct PartOfVector {
  static constexpr Index kWidth = kVectorLength<T>;
  Index count;

  auto mask() const { return hwy::HWY_NAMESPACE::FirstN(VectorTag<T>(), count); }
  Vector<T> read(const T* from) const {
    return hwy::HWY_NAMESPACE::MaskedLoad(mask(), VectorTag<T>(), from);
  }
  void write(T* to, Vector<T> value) const {
    hwy::HWY_NAMESPACE::BlendedStore(value, mask(), VectorTag<T>(), to);
  }
  Vector<T> repeat(T value) const { return broadcast(value); }
};
template <class T>
struct SingleElement {
  static constexpr Index kWidth = 1;
  T read(const T* from) const { return *from; }
  void write(T* to, T value) const { *to = value; }
  T repeat(T value) const { return value; }
};
/// Highway reads narrower vectors (SSE, NEON) whole, even past the end of the memory.
template <class T>
inline constexpr bool kReadsParts = sizeof(Vector<T>) > 16;

/// Rows of C computed together: with four vectors of each, and of B's row, they fill the 32
/// registers of AVX-512 or the 16 of narrower vectors.
template <class T>
inline constexpr int kProductRows = sizeof(Vector<T>) == 64 ? 6 : 3;

/// R rows and N Lanes of columns, from `row` and `column` on.
template <int R, int N, class Lanes, class T, class Start>
inline void product_block(const Lanes& lanes, Index inner, const LeftOperand<T>& left,
                          const RowsOperand<const T>& right, const RowsOperand<T>& result,
                          const Start& start, Index row, Index column) {
  decltype(lanes.repeat(T(0))) sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[r][n] = start(lanes, row + r, column + n * Lanes::kWidth);
  }
  const T* a = left.data + row * left.row;
  for (Index m = 0; m < inner; ++m) {
    decltype(lanes.repeat(T(0))) b[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) b[n] = lanes.read(right.at(m, column + n * Lanes::kWidth));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto factor = lanes.repeat(a[r * left.row + m * left.inner]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] += factor * b[n];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      lanes.write(result.at(row + r, column + n * Lanes::kWidth), sum[r][n]);
    }
  }
}

/// C_rc = start(lanes, r, c) + sum_m A_rm B_mc, where `start` gives what `lanes` reads, the
/// elements from column c on. R rows are computed together; the rest, if `rows` is no multiple of
/// R, one by one.
template <class T, int R = kProductRows<T>, class Start>
void tile_product(const ProductSizes& sizes, const LeftOperand<T>& left,
                  const RowsOperand<const T>& right, const RowsOperand<T>& result,
                  const Start& start) {
  const auto columns = [&]<int N>(std::integral_constant<int, N>, const auto& lanes, Index column) {
    Index row = 0;
    for (; row + R <= sizes.rows; row += R) {
      product_block<R, N>(lanes, sizes.inner, left, right, result, start, row, column);
    }
    for (; row < sizes.rows; ++row) {
      product_block<1, N>(lanes, sizes.inner, left, right, result, start, row, column);
    }
  };
  const Index whole = sizes.columns / kVectorLength<T> * kVectorLength<T>;
  for_column_blocks<T>(whole, [&]<int N>(Index column) {
    columns(std::integral_constant<int, N>(), WholeVectors<T>(), column);
  });
  const std::integral_constant<int, 1> one;
  if constexpr (kReadsParts<T>) {
    if (whole < sizes.columns) columns(one, PartOfVector<T>{sizes.columns - whole}, whole);
  } else {
    for (Index column = whole; column < sizes.columns; ++column) {
      columns(one, SingleElement<T>(), column);
    }
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
