// One pass over the rows of a d x d matrix each, for the penalty matrix A of VLA on the CPU and its
// gradient: a row is updated while it is in registers and serves every product that needs it.
//
// Arguments named x, c, ... of length d are coefficients of rows; y, out, ... of length `stride`
// run along rows and have zero tails.
#pragma once

#include "core/vectors.h"

namespace vla_bench::mixers::vla {

/// out = sum_j c_j M_j.
template <class T>
inline void read_rows(Index d, Index stride, const T* m, const T* c, T* out) {
  constexpr Index W = kVectorLength<T>;
  for_column_blocks<T>(stride, [&]<int N>(Index column) {
    Vector<T> sum[N] = {};
    for (Index j = 0; j < d; ++j) {
      const T* row = m + j * stride + column;
      const Vector<T> cj = broadcast(c[j]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[n] += cj * load(row + n * W);
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(out + column + n * W, sum[n]);
  });
}

/// M_j += x_j y;  out1 = sum_j c1_j M_j;  out2 = sum_j c2_j M_j (both of the updated rows).
template <class T>
inline void update_read_rows(Index d, Index stride, T* m, const T* x, const T* y, const T* c1,
                             T* out1, const T* c2, T* out2) {
  constexpr Index W = kVectorLength<T>;
  for_column_blocks<T>(stride, [&]<int N>(Index column) {
    Vector<T> update[N];
    Vector<T> sum1[N] = {};
    Vector<T> sum2[N] = {};
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) update[n] = load(y + column + n * W);
    for (Index j = 0; j < d; ++j) {
      T* row = m + j * stride + column;
      const Vector<T> xj = broadcast(x[j]);
      const Vector<T> c1j = broadcast(c1[j]);
      const Vector<T> c2j = broadcast(c2[j]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const Vector<T> fresh = load(row + n * W) + xj * update[n];
        store(row + n * W, fresh);
        sum1[n] += c1j * fresh;
        sum2[n] += c2j * fresh;
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      store(out1 + column + n * W, sum1[n]);
      store(out2 + column + n * W, sum2[n]);
    }
  });
}

/// to_j = from_j + x_j y: one step of a recomputed history.
template <class T>
inline void copy_updated_rows(Index d, Index stride, const T* from, const T* x, const T* y, T* to) {
  constexpr Index W = kVectorLength<T>;
  for (Index j = 0; j < d; ++j) {
    const Vector<T> xj = broadcast(x[j]);
    const T* source = from + j * stride;
    T* target = to + j * stride;
    for (Index i = 0; i < stride; i += W) store(target + i, load(source + i) + xj * load(y + i));
  }
}

/// Symmetric rank-two update M_j += (x_j y + y_j x) / 2 with two products of the same pass:
/// out1 = sum_j c1_j M_j (updated), out2 = sum_j x_j N_j. x and y have length `stride`.
template <class T>
struct SymmetricUpdateRead {
  Index d, stride;
  T* m;            // (d, stride)
  const T* x;      // (stride)
  const T* y;      // (stride)
  const T* c1;     // (d)
  T* out1;         // (stride)
  const T* other;  // (d, stride): N
  T* out2;         // (stride)
};
template <class T>
inline void symmetric_update_read_rows(const SymmetricUpdateRead<T>& args) {
  constexpr Index W = kVectorLength<T>;
  for_column_blocks<T>(args.stride, [&]<int N>(Index column) {
    Vector<T> half_x[N];
    Vector<T> half_y[N];
    Vector<T> sum1[N] = {};
    Vector<T> sum2[N] = {};
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      half_x[n] = load(args.x + column + n * W) * broadcast(T(0.5));
      half_y[n] = load(args.y + column + n * W) * broadcast(T(0.5));
    }
    for (Index j = 0; j < args.d; ++j) {
      T* row = args.m + j * args.stride + column;
      const T* other = args.other + j * args.stride + column;
      const Vector<T> xj = broadcast(args.x[j]);
      const Vector<T> yj = broadcast(args.y[j]);
      const Vector<T> c1j = broadcast(args.c1[j]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const Vector<T> fresh = load(row + n * W) + xj * half_y[n] + yj * half_x[n];
        store(row + n * W, fresh);
        sum1[n] += c1j * fresh;
        sum2[n] += xj * load(other + n * W);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      store(args.out1 + column + n * W, sum1[n]);
      store(args.out2 + column + n * W, sum2[n]);
    }
  });
}

}  // namespace vla_bench::mixers::vla
