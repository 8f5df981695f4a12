// Step 1 of deltanet.h and its backward, one token and head at a time.
#pragma once

#include <algorithm>
#include <cmath>

#include "mixers/deltanet/deltanet.h"
#include "mixers/feature_map.h"

namespace vla_bench::mixers {

template <class T>
class DeltaNetFeatures {
 public:
  DeltaNetFeatures(DeltaNetVariant variant, Index d)
      : gated_(variant == DeltaNetVariant::paper), d_(d) {}

  /// paper: a gate per value channel and strength 1; standard: a strength per head, no gate.
  bool gated() const { return gated_; }

  /// k'; returns the length that unit() divided by, before its floor.
  T key(const T* raw, T* out) const {
    apply_feature_map(key_map(), raw, out, d_);
    return make_unit(out);
  }
  /// q'; returns the length as key() does (1 in the paper variant, which does not normalise).
  T query(const T* raw, T* out) const {
    apply_feature_map(query_map(), raw, out, d_);
    return gated_ ? T(1) : make_unit(out);
  }

  /// From dk' (overwritten) to dk. `key` and `length` are what key() gave.
  void key_backward(const T* raw, const T* key, T length, T* dkey, T* dk) const {
    unit_backward(key, length, dkey);
    map_backward(key_map(), raw, key, dkey, dk);
  }
  void query_backward(const T* raw, const T* query, T length, T* dquery, T* dq) const {
    if (!gated_) unit_backward(query, length, dquery);
    map_backward(query_map(), raw, query, dquery, dq);
  }

  void gate(const T* aux, T* out) const {
#pragma omp simd
    for (Index i = 0; i < d_; ++i) out[i] = 1 / (1 + ops::cpu::exp(-aux[i]));
  }
  T strength(const T* aux) const { return 1 / (1 + std::exp(-aux[0])); }

 private:
  FeatureMap key_map() const { return gated_ ? FeatureMap::identity : FeatureMap::silu; }
  FeatureMap query_map() const { return gated_ ? FeatureMap::elu1 : FeatureMap::silu; }

  T make_unit(T* x) const {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < d_; ++i) sum += x[i] * x[i];
    const T length = std::sqrt(sum);
    const T scale = 1 / std::max(length, static_cast<T>(kUnitFloor));
    for (Index i = 0; i < d_; ++i) x[i] *= scale;
    return length;
  }

  /// dy <- (dy - y (y . dy)) / length; below the floor, dy / floor.
  void unit_backward(const T* y, T length, T* dy) const {
    constexpr T floor = static_cast<T>(kUnitFloor);
    T along = 0;
    if (!(length < floor)) {
#pragma omp simd reduction(+ : along)
      for (Index i = 0; i < d_; ++i) along += y[i] * dy[i];
    }
    const T scale = 1 / std::max(length, floor);
    for (Index i = 0; i < d_; ++i) dy[i] = (dy[i] - y[i] * along) * scale;
  }

  /// `y` is only read by maps whose derivative needs their value (elu1), which are not normalised.
  void map_backward(FeatureMap map, const T* x, const T* y, const T* dy, T* dx) const {
    feature_map_backward(map, x, y, dy, dx, d_);
  }

  bool gated_;
  Index d_;
};

}  // namespace vla_bench::mixers
