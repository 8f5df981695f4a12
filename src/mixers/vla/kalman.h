// The Kalman filter as a memory: recursive least squares that expects the values of its keys to
// drift (a textbook's; compare arXiv:2609.07816).
//
// One lane, S_0 = 0, P_0 = I / lambda_0 (d, d); q, k, v are raw projections (d):
//   1. q' = unit(silu(q)),  k' = unit(silu(k))                    (d)
//   2. P' = P_{t-1} + rho I                                       drift (d, d)
//   3. g = P' k' / (1 + k'^T P' k')                               gain (d)
//   4. S_t = S_{t-1} + (v - S_{t-1} k') g^T                       (d, d)
//   5. P_t = P' - g (P' k')^T
//   6. o = S_t q'
// With rho = 0 it is recursive least squares: VLA with the penalty along the key at length 1, a raw
// write, no nudge and no normaliser (vla.h). It is computed as VLA for any rho: A after token t is
// P_t + rho I, which starts as I / lambda_0 + rho I and is nudged at every token, after its write
// direction A k' = P_t k' = g = w / delta is taken.
//
// rho = 5e-5 is VLA's nudge, .001 every 20 tokens, spread over its period.
//
// The recall probe writes with 2 to 5. a_norm of tables is the norm of P_t + rho I.
//
// Cost per token and head: vla.h's, 6 d^2 forward. State: 2 d^2 values.
#pragma once

#include <string_view>

#include "mixers/vla/vla.h"

namespace vla_bench {

/// What serves VlaOptions serves these as well.
struct KalmanOptions {
  static constexpr std::string_view name = "kalman";
  static constexpr std::string_view title = "Kalman filter";
  static constexpr std::string_view colour = "#7F3FFF";
  static constexpr double most_step_ms = 0.9;

  double lambda_0 = 0.1;
  double rho = 5e-5;

  operator VlaOptions() const {
    return {.feature_map = FeatureMap::silu,
            .penalty = Penalty::key,
            .u_scale = 1.0,
            .write = WriteDirection::raw,
            .lambda_0 = 1.0 / (1.0 / lambda_0 + rho),
            .per_eps = rho,
            .period = rho > 0.0 ? 1 : 0,
            .normaliser = Normaliser::none,
            .gain = true,
            .unit_query = true};
  }

  template <class V>
  void visit(V& v) {
    v.field("lambda_0", lambda_0, {.help = "kalman: P_0 = I / lambda_0", .min = 1e-12});
    v.field("rho", rho, {.help = "kalman: what P grows by before every token", .min = 0});
  }
};

}  // namespace vla_bench
