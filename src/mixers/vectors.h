// Vectors of the CPU's widest registers, and rows of d channels made of them.
//
// A row of d channels has `padded(d)` elements: d rounded up to whole vectors, with a tail of
// zeros. So any d runs on the same loops, and columns are processed in blocks of up to four vectors
// whose sums stay in registers. Sums over rows ("axpy" form, out = sum_j c_j row_j) need no
// horizontal sums; for dot products of rows, `sum_each` reduces kVectorLength rows together.
#pragma once

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
  return value - Vector<T>{};  // x - 0 is x for every x, -0 included, so this only broadcasts
}

/// Sums of neighbours: of a in the first half, of b in the second.
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

/// Element i of the result is the sum over parts[i]. Overwrites the kVectorLength vectors of parts.
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

}  // namespace vla_bench::mixers
