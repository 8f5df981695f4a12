// What rules of the delta family share: how they take keys, queries, the strength of a write and
// the decay of a head from a token's inputs, and how gradients go back. Written once for the CPU
// and CUDA, for a Token of features.h.
//
// Golden files of a rule hold what the projections become: keys and queries of unit length, beta
// and log alpha. With `as_given` inputs are these numbers; the functions then pass them through.
#pragma once

#include <vector>

#include "mixers/features.h"
#include "mixers/layout.h"

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

/// y = unit(phi(x)), (d).
template <class Token>
struct UnitFeature {
  using Channels = typename Token::Channels;
  using T = typename Token::Scalar;

  VLA_HOST_DEVICE UnitFeature(const Token& token, const Channels& raw, FeatureMap map) : y(raw) {
    apply_feature_map(token, map, y);
    length = make_unit(token, y);
  }
  /// dy <- dx
  VLA_HOST_DEVICE void backward(const Token& token, const Channels& raw, FeatureMap map,
                                Channels& dy) const {
    unit_backward(token, y, length, dy);
    feature_map_backward(token, map, raw, dy);
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

/// The parameters of HeadDecay, a number per head each.
inline std::vector<CoreParameter> head_decay_parameters() {
  return {{.name = "A_log", .initialisation = Initialisation::decay_rate},
          {.name = "dt_bias", .initialisation = Initialisation::decay_step}};
}
/// How many of them the core reads.
constexpr Index head_decay_parameter_count(bool as_given) { return as_given ? 0 : 2; }

/// The decay of a head and token, alpha = exp(-exp(A_log) softplus(x + dt_bias))
/// (arXiv:2405.21060), where x is the token's projection number `from` and A_log and dt_bias are
/// the core's parameters from number `first` on. As given, x is log alpha.
template <class Token>
struct HeadDecay {
  using T = typename Token::Scalar;

  VLA_HOST_DEVICE HeadDecay(const Token& token, int from, bool as_given, int first = 0)
      : from_(from),
        first_(first),
        as_given_(as_given),
        log_alpha_(token.more_scalar(from)),
        slope_(1) {
    if (!as_given) {
      const T rate = token.exp(token.parameter(first));
      const T x = log_alpha_ + token.parameter(first + 1);
      log_alpha_ = -rate * softplus(token, x);
      slope_ = -rate * sigmoid(token, x);
    }
    alpha = token.exp(log_alpha_);
  }
  /// Puts the gradients of x and of both parameters.
  VLA_HOST_DEVICE void backward(const Token& token, T dalpha) const {
    const T dlog_alpha = dalpha * alpha;
    token.put_dmore(from_, dlog_alpha * slope_);
    if (as_given_) return;
    token.put_dparameter(first_, dlog_alpha * log_alpha_);
    token.put_dparameter(first_ + 1, dlog_alpha * slope_);
  }

  T alpha;

 private:
  int from_, first_;
  bool as_given_;
  T log_alpha_;
  T slope_;  // d log alpha / d x
};

}  // namespace vla_bench::mixers
