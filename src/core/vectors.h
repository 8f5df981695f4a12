// Vectors of the CPU's widest registers (Highway), and rows of d channels made of them.
//
// A row of d channels has `padded(d)` elements: d rounded up to whole vectors, with a tail of
// zeros. So any d runs on the same loops, and columns are processed in blocks of up to four vectors
// whose sums stay in registers. Sums over rows ("axpy" form, out = sum_j c_j row_j) need no
// horizontal sums; for dot products of rows, `sum_each` reduces kVectorLength rows together.
#pragma once

// With AVX2 Highway asks for AES and PCLMUL, which nothing here uses and x86-64-v3 does not
// include.
#define HWY_DISABLE_PCLMUL_AES
#include <hwy/highway.h>

#include "core/array.h"

namespace vla_bench {

/// Of the instructions that the program is compiled for.
template <class T>
using VectorTag = hwy::HWY_NAMESPACE::ScalableTag<T>;
template <class T>
using Vector = hwy::HWY_NAMESPACE::Vec<VectorTag<T>>;

template <class T>
inline constexpr Index kVectorLength = sizeof(Vector<T>) / sizeof(T);

/// d rounded up to whole vectors: the stride of state rows and the length of token vectors.
template <class T>
constexpr Index padded(Index d) {
  return (d + kVectorLength<T> - 1) / kVectorLength<T> * kVectorLength<T>;
}

template <class T>
inline Vector<T> load(const T* from) {
  return hwy::HWY_NAMESPACE::LoadU(VectorTag<T>(), from);
}
template <class T>
inline void store(T* to, Vector<T> v) {
  hwy::HWY_NAMESPACE::StoreU(v, VectorTag<T>(), to);
}
template <class T>
inline Vector<T> broadcast(T value) {
  return hwy::HWY_NAMESPACE::Set(VectorTag<T>(), value);
}

template <class V>
inline V negative(V v) {
  return hwy::HWY_NAMESPACE::Neg(v);
}

/// Sums of neighbours: of a in the first half, of b in the second.
template <class T>
inline Vector<T> sum_neighbours(Vector<T> a, Vector<T> b) {
  const VectorTag<T> tag;
  return hwy::HWY_NAMESPACE::ConcatEven(tag, b, a) + hwy::HWY_NAMESPACE::ConcatOdd(tag, b, a);
}

/// Element i of the result is the sum over parts[i]. Overwrites the kVectorLength vectors of parts.
template <class T>
inline Vector<T> sum_each(Vector<T>* parts) {
  for (Index width = kVectorLength<T>; width > 1; width /= 2) {
    for (Index i = 0; i < width / 2; ++i) {
      parts[i] = sum_neighbours<T>(parts[2 * i], parts[2 * i + 1]);
    }
  }
  return parts[0];
}

/// x . y over `length` elements, a multiple of the vector length.
template <class T>
inline T dot(const T* x, const T* y, Index length) {
  Vector<T> sum{};
  for (Index i = 0; i < length; i += kVectorLength<T>) sum += load(x + i) * load(y + i);
  for (Index width = kVectorLength<T>; width > 1; width /= 2) sum = sum_neighbours<T>(sum, sum);
  return hwy::HWY_NAMESPACE::GetLane(sum);
}

/// Calls body.template operator()<N>(first_column) over columns in blocks of N = 4, 2, 1 whole
/// vectors.
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

}  // namespace vla_bench
