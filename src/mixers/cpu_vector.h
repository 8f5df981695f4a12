// The Token of features.h on the CPU: loops over d channels that GCC vectorises.
#pragma once

#include <cmath>

#include "core/array.h"
#include "ops/cpu/vector_math.h"

namespace vla_bench::mixers {

template <class T>
struct CpuMath {
  using Scalar = T;

  Index d = 0;

  template <class F>
  void each(const F& f) const {
#pragma omp simd
    for (Index i = 0; i < d; ++i) f(i);
  }
  template <class X, class Y>
  T dot(const X& x, const Y& y) const {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < d; ++i) sum += x[i] * y[i];
    return sum;
  }
  T exp(T x) const { return ops::cpu::exp(x); }
  T sqrt(T x) const { return std::sqrt(x); }
};

/// A view of d numbers.
template <class T>
struct CpuVector : CpuMath<T> {
  using Channels = T*;
};

}  // namespace vla_bench::mixers
