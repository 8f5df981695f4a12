// What a config can say about Variational Linear Attention.
#pragma once

#include <array>
#include <cmath>
#include <optional>
#include <string_view>

#include "config/enums.h"
#include "config/field.h"
#include "core/array.h"

namespace vla_bench {

struct VlaOptions {
  static constexpr std::string_view name = "vla";
  static constexpr std::string_view title = "VLA";
  static constexpr std::string_view colour = "#0072B2";
  static constexpr std::array more_implementations = {Implementation::sequential};
  static constexpr double most_step_ms = 0.9;

  FeatureMap feature_map = FeatureMap::elu1;
  Penalty penalty = Penalty::learned;
  std::optional<double> u_scale{};
  WriteDirection write = WriteDirection::unit;
  Residual residual = Residual::key;
  double lambda_0 = 0.1;
  double per_eps = 1e-3;
  Index period = 20;
  double stab_eps = 1e-4;
  Normaliser normaliser = Normaliser::zq;
  /// No key of its own: eval.hold_penalty_after sets it. Later tokens leave out (2) and (3) of
  /// vla.h: A stays as it is. 0: never.
  Index hold_after = 0;
  // Of no key either, for kalman.h, where u = k and the write is raw: the nudge comes after (4),
  // which then is the filter's gain, a = w / delta; and q' = unit(phi(q)).
  bool gain = false;
  bool unit_query = false;

  /// Length of the penalty direction u at d_h channels.
  double u_length(Index d_h) const {
    return u_scale.value_or(1.0 / std::sqrt(static_cast<double>(d_h)));
  }
  /// The same where a write is given its u; empty where u is made from the key, or there is none.
  std::optional<double> direction_length(Index d_h) const {
    if (penalty != Penalty::learned) return std::nullopt;
    return u_length(d_h);
  }

  template <class V>
  void visit(V& v) {
    v.field("feature_map", feature_map, {.help = "vla: phi applied to keys and queries"});
    v.field("penalty", penalty,
            {.help = "vla: penalty direction u learned (W_u), along the unit key, or frozen "
                     "(A stays I / lambda_0)"});
    v.field("u_scale", u_scale, {.help = "vla: length of u; null: 1 / sqrt(d_h)", .min = 0});
    v.field("write", write, {.help = "vla: write along unit(A k), or raw A k"});
    v.field("residual", residual,
            {.help = "vla: residual v - S k (key) or v - S a (write, the tied form)"});
    v.field("lambda_0", lambda_0, {.help = "vla: A_0 = I / lambda_0", .min = 1e-12});
    v.field("per_eps", per_eps, {.help = "vla: amount of the periodic nudge of A", .min = 0});
    v.field("period", period, {.help = "vla: steps between nudges; 0 = no nudge", .min = 0});
    v.field("stab_eps", stab_eps, {.help = "vla: floor of the two denominators", .min = 1e-30});
    v.field("normaliser", normaliser, {.help = "vla: divide the read by z . phi(q), or not"});
  }
};

}  // namespace vla_bench
