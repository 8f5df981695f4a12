// What rules of the delta family share: how they take keys, queries and the strength of a write from
// a token's inputs, and how gradients go back. Written once for the CPU and CUDA, for a Token of
// features.h.
//
// Golden files of a rule hold what the projections become: keys and queries of unit length, and
// beta. With `as_given` inputs are these numbers; the functions then pass them through.
#pragma once

#include "mixers/features.h"

namespace vla_bench::mixers {

/// A key or query y = unit(silu(x)), (d).
template <class Token>
struct UnitSilu {
  using Channels = typename Token::Channels;
  using T = typename Token::Scalar;

  VLA_HOST_DEVICE UnitSilu(const Token& token, const Channels& raw, bool as_given)
      : y(raw), length(1) {
    if (as_given) return;
    apply_feature_map(token, FeatureMap::silu, y);
    length = make_unit(token, y);
  }
  /// dy <- dx
  VLA_HOST_DEVICE void backward(const Token& token, const Channels& raw, bool as_given,
                                Channels& dy) const {
    if (as_given) return;
    unit_backward(token, y, length, dy);
    feature_map_backward(token, FeatureMap::silu, raw, dy);
  }

  Channels y;
  T length;
};

/// The strength of a write, beta = sigmoid(x).
template <class Token>
struct Strength {
  using T = typename Token::Scalar;

  VLA_HOST_DEVICE Strength(const Token& token, T x, bool as_given)
      : beta(as_given ? x : sigmoid(token, x)), slope(as_given ? T(1) : beta * (1 - beta)) {}

  T beta;
  T slope;  // d beta / d x
};

}  // namespace vla_bench::mixers
