// Feature maps phi of linear attention and their derivatives, over short vectors; unit().
#pragma once

#include "config/enums.h"
#include "core/array.h"
#include "mixers/feature_floor.h"
#include "ops/cpu/vector_math.h"

namespace vla_bench::mixers {

/// y = phi(x): elu1 x + 1 for x > 0, else exp x; identity; relu; silu x / (1 + exp -x).
template <class T>
inline void apply_feature_map(FeatureMap map, const T* x, T* y, Index count) {
  switch (map) {
    case FeatureMap::elu1:
#pragma omp simd
      for (Index i = 0; i < count; ++i) {
        const T exponential = ops::cpu::exp(x[i] > 0 ? T(0) : x[i]);
        y[i] = x[i] > 0 ? x[i] + 1 : exponential;
      }
      break;
    case FeatureMap::identity:
      for (Index i = 0; i < count; ++i) y[i] = x[i];
      break;
    case FeatureMap::relu:
      // Written so that NaN passes through.
      for (Index i = 0; i < count; ++i) y[i] = x[i] <= 0 ? T(0) : x[i];
      break;
    case FeatureMap::silu:
#pragma omp simd
      for (Index i = 0; i < count; ++i) y[i] = x[i] / (1 + ops::cpu::exp(-x[i]));
      break;
  }
}

/// dx = dy phi'(x), y = phi(x). dx may be dy.
template <class T>
inline void feature_map_backward(FeatureMap map, const T* x, const T* y, const T* dy, T* dx,
                                 Index count) {
  switch (map) {
    case FeatureMap::elu1:  // phi' = exp x = y below zero
      for (Index i = 0; i < count; ++i) dx[i] = dy[i] * (x[i] > 0 ? T(1) : y[i]);
      break;
    case FeatureMap::identity:
      for (Index i = 0; i < count; ++i) dx[i] = dy[i];
      break;
    case FeatureMap::relu:
      for (Index i = 0; i < count; ++i) dx[i] = x[i] > 0 ? dy[i] : T(0);
      break;
    case FeatureMap::silu:  // sigma (1 + x (1 - sigma))
#pragma omp simd
      for (Index i = 0; i < count; ++i) {
        const T sigma = 1 / (1 + ops::cpu::exp(-x[i]));
        dx[i] = dy[i] * sigma * (1 + x[i] * (1 - sigma));
      }
      break;
  }
}

}  // namespace vla_bench::mixers
