// Step (1) of vla.h and its backward, and the form of its recurrence.
#pragma once

#include <cmath>

#include "config/enums.h"
#include "core/index.h"
#include "mixers/features.h"
#include "mixers/recurrence/form.h"

namespace vla_bench::mixers::vla {

/// vla_chunked.h counts pivots (delta before its floor) below this.
inline constexpr double kLeastPivot = 0.999;

struct VlaRule {
  /// `Options`: config keys of vla.
  template <class Options>
  VlaRule(const Options& options, Index d)
      : feature_map(options.feature_map),
        penalty(options.penalty),
        u_scale(options.u_scale.value_or(1.0 / std::sqrt(static_cast<double>(d)))),
        inverse_lambda(1.0 / options.lambda_0),
        unit_write(options.write == WriteDirection::unit),
        tied(options.residual == Residual::write),
        normalises(options.normaliser == Normaliser::zq),
        unit_query(options.unit_query),
        gain(options.gain),
        floor(options.stab_eps) {}

  FeatureMap feature_map;
  Penalty penalty;
  double u_scale;  // length of the penalty direction
  double inverse_lambda;
  bool unit_write;
  bool tied;  // residual along the write direction
  bool normalises;
  bool unit_query;
  bool gain;
  double floor;

  RecurrenceForm form() const {
    using Form = RecurrenceForm;
    return {.residual = tied ? Form::Residual::along_a : Form::Residual::along_r,
            .normaliser = normalises ? Form::Normaliser::sums_f : Form::Normaliser::none,
            .floor = floor,
            .vectors = penalty == Penalty::learned ? 1 : 0};
  }
  /// Numbers of A.
  Index own_state_size(Index d) const { return penalty == Penalty::frozen ? 0 : d * d; }

  /// q' into row q, f into f, k into r (tied or not), u into own. A frozen A gives a as well, of
  /// other penalties a comes from the chain of A.
  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    using T = typename Token::Scalar;
    auto query = token.q();
    apply_feature_map(token, feature_map, query);
    if (unit_query) make_unit(token, query);
    token.put_q(query);
    auto key = token.k();
    apply_feature_map(token, feature_map, key);
    token.put_f(key);
    make_unit(token, key);
    token.put_r(key);
    const T length = static_cast<T>(u_scale);
    if (penalty == Penalty::frozen) {
      put_frozen_direction(token, key);
    } else if (penalty == Penalty::key) {
      token.each([&](auto i) { key[i] *= length; });
      token.put_own(key);
    } else {
      auto direction = token.more(0);
      const T norm = token.sqrt(token.dot(direction, direction));
      const T factor = length / at_least(norm, static_cast<T>(kUnitFloor));
      token.each([&](auto i) { direction[i] *= factor; });
      token.put_own(direction);
    }
  }

  /// dr holds all of dk but what comes from u, down du; of a frozen A da is read.
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    unbind_query(token);
    unbind_key(token);
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind_query(const Token& token) const {
    const auto q = token.q();
    auto gradient = token.dq();
    if (unit_query) {
      auto query = q;
      apply_feature_map(token, feature_map, query);
      const auto length = make_unit(token, query);
      unit_backward(token, query, length, gradient);
    }
    feature_map_backward(token, feature_map, q, gradient);
    token.put_dq(gradient);
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind_key(const Token& token) const {
    using T = typename Token::Scalar;
    const auto kappa = token.k();
    auto key = kappa;
    apply_feature_map(token, feature_map, key);
    const T norm = make_unit(token, key);
    auto dk = token.dr();
    if (penalty == Penalty::frozen) {
      const T scale = static_cast<T>(inverse_lambda);
      auto da = token.da();
      if (unit_write) {
        auto b = key;
        token.each([&](auto i) { b[i] *= scale; });
        const T b_norm = make_unit(token, b);
        unit_backward(token, b, b_norm, da);
      }
      token.each([&](auto i) { dk[i] += scale * da[i]; });
    } else {
      const T length = static_cast<T>(u_scale);
      auto du = token.down();
      token.each([&](auto i) { du[i] *= length; });
      if (penalty == Penalty::key) {
        token.each([&](auto i) { dk[i] += du[i]; });
      } else {
        auto direction = token.more(0);
        const T direction_norm = make_unit(token, direction);
        unit_backward(token, direction, direction_norm, du);
        token.put_dmore(0, du);
      }
    }
    unit_backward(token, key, norm, dk);
    const auto df = token.df();
    token.each([&](auto i) { dk[i] += df[i]; });
    feature_map_backward(token, feature_map, kappa, dk);
    token.put_dk(dk);
  }

  /// The write direction of a frozen A: b = k / lambda_0, or unit(b). `key` is overwritten.
  template <class Token, class Channels>
  VLA_HOST_DEVICE void put_frozen_direction(const Token& token, Channels& key) const {
    using T = typename Token::Scalar;
    const T scale = static_cast<T>(inverse_lambda);
    token.each([&](auto i) { key[i] *= scale; });
    if (unit_write) make_unit(token, key);
    token.put_a(key);
  }
};

}  // namespace vla_bench::mixers::vla
