// Row kernels over a d x d recurrent state, the inner loops of the recurrent mixers on the CPU.
//
// A state is stored as d rows of `stride` elements (d rounded up to whole vectors, the tail zero).
// Each kernel makes one pass over the rows: it updates a row while it is in registers and uses it
// for every product that needs it, so a token costs one load and one store of the state whatever
// the number of products. All products have the form out = sum_j c_j row_j ("axpy" form), which
// needs no horizontal sums; where a row must be dotted, kVectorLength rows are reduced together by
// `sum_each`. Columns are processed in blocks of up to four vectors, so any d runs on the same code
// with its accumulators in registers.
//
// Arguments named x, c, ... of length d are coefficients of rows; y, z, out, ... of length `stride`
// run along rows and have zero tails.
#pragma once

#include <cmath>
#include <cstring>

#include "core/array.h"

namespace vla_bench::mixers {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <class T>
inline constexpr Index kVectorLength = kVectorBytes / static_cast<Index>(sizeof(T));

template <class T>
struct VectorType {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorType<T>::type;

/// d rounded up to whole vectors: the stride of state rows and the length of token vectors.
template <class T>
constexpr Index padded(Index d) {
  return (d + kVectorLength<T> - 1) / kVectorLength<T> * kVectorLength<T>;
}

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class T>
inline void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof v);
}
template <class T>
inline Vector<T> broadcast(T value) {
  return value -
         Vector<T>{};  // x - 0 is x for every x, -0 included, so this is the broadcast alone
}

/// First half: sums of neighbours in a; second half: sums of neighbours in b.
inline Vector<float> sum_neighbours(Vector<float> a, Vector<float> b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}
inline Vector<double> sum_neighbours(Vector<double> a, Vector<double> b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#elif defined(__AVX__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#else
  return __builtin_shufflevector(a, b, 0, 2) + __builtin_shufflevector(a, b, 1, 3);
#endif
}

/// Element i of the result is the sum over parts[i]; parts holds kVectorLength vectors and is
/// overwritten.
template <class T>
inline Vector<T> sum_each(Vector<T>* parts) {
  for (Index width = kVectorLength<T>; width > 1; width /= 2) {
    for (Index i = 0; i < width / 2; ++i) {
      parts[i] = sum_neighbours(parts[2 * i], parts[2 * i + 1]);
    }
  }
  return parts[0];
}

/// x . y over `length` elements, a multiple of the vector length.
template <class T>
inline T dot(const T* x, const T* y, Index length) {
  Vector<T> sum{};
  for (Index i = 0; i < length; i += kVectorLength<T>) sum += load(x + i) * load(y + i);
  for (Index width = kVectorLength<T>; width > 1; width /= 2) sum = sum_neighbours(sum, sum);
  return sum[0];
}

/// Calls body.template operator()<N>(first_column) over columns in blocks of N = 4, 2, 1 vectors.
template <class T, class Body>
inline void for_column_blocks(Index stride, Body&& body) {
  Index column = 0;
  Index vectors = stride / kVectorLength<T>;
  for (; vectors >= 4; vectors -= 4, column += 4 * kVectorLength<T>) {
    body.template operator()<4>(column);
  }
  if (vectors >= 2) {
    body.template operator()<2>(column);
    vectors -= 2;
    column += 2 * kVectorLength<T>;
  }
  if (vectors == 1) body.template operator()<1>(column);
}

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

/// M_i += x_i y;  dots_i = M_i . z;  out1 = sum_i c1_i M_i;  out2 = sum_i x_i N_i, over the updated
/// rows of M and the rows of another matrix N.
template <class T>
struct UpdateDotRead {
  Index d, stride;
  T* m;            // (d, stride)
  const T* x;      // (d)
  const T* y;      // (stride)
  const T* z;      // (stride)
  T* dots;         // (stride), the first d are set
  const T* c1;     // (d)
  T* out1;         // (stride)
  const T* other;  // (d, stride): N
  T* out2;         // (stride)
};
template <class T>
inline void update_dot_read_rows(const UpdateDotRead<T>& args) {
  constexpr Index W = kVectorLength<T>;
  const Index d = args.d;
  const Index stride = args.stride;
  for (Index i = 0; i < stride; ++i) args.dots[i] = 0;
  for_column_blocks<T>(stride, [&]<int N>(Index column) {
    Vector<T> update[N];
    Vector<T> along[N];
    Vector<T> sum1[N] = {};
    Vector<T> sum2[N] = {};
    Vector<T> parts[W];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      update[n] = load(args.y + column + n * W);
      along[n] = load(args.z + column + n * W);
    }
    for (Index first = 0; first < d; first += W) {
      const Index count = d - first < W ? d - first : W;
      for (Index k = count; k < W; ++k) parts[k] = Vector<T>{};
      for (Index k = 0; k < count; ++k) {
        const Index i = first + k;
        T* row = args.m + i * stride + column;
        const T* other = args.other + i * stride + column;
        const Vector<T> xi = broadcast(args.x[i]);
        const Vector<T> c1i = broadcast(args.c1[i]);
        Vector<T> part{};
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          const Vector<T> fresh = load(row + n * W) + xi * update[n];
          store(row + n * W, fresh);
          sum1[n] += c1i * fresh;
          sum2[n] += xi * load(other + n * W);
          part += fresh * along[n];
        }
        parts[k] = part;
      }
      store(args.dots + first, load(args.dots + first) + sum_each<T>(parts));
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      store(args.out1 + column + n * W, sum1[n]);
      store(args.out2 + column + n * W, sum2[n]);
    }
  });
}

/// M_i += x_i y;  out = sum_i x_i N_i.
template <class T>
inline void update_read_other_rows(Index d, Index stride, T* m, const T* x, const T* y,
                                   const T* other, T* out) {
  constexpr Index W = kVectorLength<T>;
  for_column_blocks<T>(stride, [&]<int N>(Index column) {
    Vector<T> update[N];
    Vector<T> sum[N] = {};
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) update[n] = load(y + column + n * W);
    for (Index i = 0; i < d; ++i) {
      T* row = m + i * stride + column;
      const T* other_row = other + i * stride + column;
      const Vector<T> xi = broadcast(x[i]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        store(row + n * W, load(row + n * W) + xi * update[n]);
        sum[n] += xi * load(other_row + n * W);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(out + column + n * W, sum[n]);
  });
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

}  // namespace vla_bench::mixers
