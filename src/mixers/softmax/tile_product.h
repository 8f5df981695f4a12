// Products of tiles that fit in L1. The six products of tiled attention all have the form
// C (+)= A B with contiguous rows of B and C, and A read one element at a time, in either
// orientation.
#pragma once

#include "mixers/vectors.h"

namespace vla_bench::mixers::softmax {

/// Rows of C computed together: their sums and a row of B stay in registers.
inline constexpr Index kProductRows = 4;

struct ProductSizes {
  Index rows;     // a multiple of kProductRows
  Index inner;    // what is summed over
  Index columns;  // a multiple of the vector length
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
};

/// C_rc (+)= sum_m A_rm B_mc.
template <bool kAccumulate, class T>
void tile_product(const ProductSizes& sizes, const LeftOperand<T>& left,
                  const RowsOperand<const T>& right, const RowsOperand<T>& result) {
  constexpr Index W = kVectorLength<T>;
  constexpr Index R = kProductRows;
  for_column_blocks<T>(sizes.columns, [&]<int N>(Index column) {
    for (Index first = 0; first < sizes.rows; first += R) {
      const T* a = left.data + first * left.row;
      const T* b = right.data + column;
      T* c = result.data + first * result.stride + column;
      Vector<T> sum[R][N];
#pragma GCC unroll 4
      for (Index r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          sum[r][n] = kAccumulate ? load(c + r * result.stride + n * W) : Vector<T>{};
        }
      }
      for (Index m = 0; m < sizes.inner; ++m) {
        Vector<T> row[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) row[n] = load(b + m * right.stride + n * W);
#pragma GCC unroll 4
        for (Index r = 0; r < R; ++r) {
          const Vector<T> factor = broadcast(a[r * left.row + m * left.inner]);
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) sum[r][n] += factor * row[n];
        }
      }
#pragma GCC unroll 4
      for (Index r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) store(c + r * result.stride + n * W, sum[r][n]);
      }
    }
  });
}

}  // namespace vla_bench::mixers::softmax
