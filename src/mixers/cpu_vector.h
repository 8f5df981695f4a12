// The Token of features.h on the CPU: loops over d channels that GCC vectorises.
#pragma once

#include <cmath>
#include <type_traits>

#include "core/array.h"
#include "core/vectors.h"
#include "ops/cpu/vector_math.h"

namespace vla_bench::mixers {

/// `Size`: Index, or a std::integral_constant where the number is known to the compiler, so that it
/// unrolls the loops and keeps a token's channels in registers.
template <class T, class Size = Index>
struct CpuMath {
  using Scalar = T;

  Size d{};

  template <class F>
  void each(const F& f) const {
#pragma omp simd
    for (Index i = 0; i < d; ++i) f(i);
  }
  template <class X, class Y>
  T dot(const X& x, const Y& y) const {
    if constexpr (requires { requires Size::value % kVectorLength<T> == 0; }) {
      // Sums in a tree: GCC would add one after the other.
      return vla_bench::dot<T>(&x[0], &y[0], d);
    }
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < d; ++i) sum += x[i] * y[i];
    return sum;
  }
  T exp(T x) const { return ops::cpu::exp(x); }
  T sqrt(T x) const { return std::sqrt(x); }
  T log1p(T x) const { return std::log1p(x); }
  T log(T x) const { return std::log(x); }
};

/// Calls body(size), in float with d as a constant where it is a common head size. double, which
/// only checks, has one loop for all: copies for each size take longest of all to compile.
template <class T, class Body>
void with_head_size(Index d, const Body& body) {
  if constexpr (std::is_same_v<T, float>) {
    switch (d) {
      case 16:
        return body(std::integral_constant<Index, 16>{});
      case 32:
        return body(std::integral_constant<Index, 32>{});
      case 64:
        return body(std::integral_constant<Index, 64>{});
      case 128:
        return body(std::integral_constant<Index, 128>{});
      default:
        break;
    }
  }
  body(d);
}

/// A view of d numbers.
template <class T>
struct CpuVector : CpuMath<T> {
  using Channels = T*;
};

}  // namespace vla_bench::mixers
