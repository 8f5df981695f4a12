// Products of tiles that fit in L1. The six products of tiled attention all have the form
// C (+)= A B with contiguous rows of B and C, and A read one element at a time, in either
// orientation.
#pragma once

#include "mixers/vectors.h"

namespace vla_bench::mixers::softmax {

/// Rows of C computed together: their sums and a row of B stay in registers.
inline constexpr Index kProductRows = 4;

/// C_rc (+)= sum_m A_rm B_mc for r < rows (a multiple of kProductRows), m < inner, c < columns (a
/// multiple of the vector length).
template <class T>
struct TileProduct {
  Index rows, inner, columns;
  const T* a;  // element (r, m) at a[r * a_row + m * a_inner]
  Index a_row, a_inner;
  const T* b;  // (inner, columns), rows b_stride apart
  Index b_stride;
  T* c;  // (rows, columns), rows c_stride apart
  Index c_stride;
};

template <bool kAccumulate, class T>
void tile_product(const TileProduct<T>& args) {
  constexpr Index W = kVectorLength<T>;
  constexpr Index R = kProductRows;
  for_column_blocks<T>(args.columns, [&]<int N>(Index column) {
    for (Index first = 0; first < args.rows; first += R) {
      const T* a = args.a + first * args.a_row;
      const T* b = args.b + column;
      T* c = args.c + first * args.c_stride + column;
      Vector<T> sum[R][N];
#pragma GCC unroll 4
      for (Index r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          sum[r][n] = kAccumulate ? load(c + r * args.c_stride + n * W) : Vector<T>{};
        }
      }
      for (Index m = 0; m < args.inner; ++m) {
        Vector<T> row[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) row[n] = load(b + m * args.b_stride + n * W);
#pragma GCC unroll 4
        for (Index r = 0; r < R; ++r) {
          const Vector<T> factor = broadcast(a[r * args.a_row + m * args.a_inner]);
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) sum[r][n] += factor * row[n];
        }
      }
#pragma GCC unroll 4
      for (Index r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) store(c + r * args.c_stride + n * W, sum[r][n]);
      }
    }
  });
}

}  // namespace vla_bench::mixers::softmax
