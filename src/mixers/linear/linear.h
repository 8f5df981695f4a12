// Linear attention (Katharopoulos et al. 2020, arXiv:2006.16236), the paper's baseline.
//
// One lane (batch element and head), from S_0 = 0 (d, d) and z_0 = 0 (d); phi(x) = ELU(x) + 1:
//   1. f_t = phi(k_t), p_t = phi(q_t)          (d)
//   2. S_t = S_{t-1} + v_t f_t^T               (d, d)
//   3. z_t = z_{t-1} + f_t                     (d)
//   4. n_t = S_t p_t                           (d)
//   5. c_t = z_t . p_t;  o_t = n_t / max(c_t, 1e-6)
// Steps 2 to 5 are recurrence.h's without residual and decay, with a = f, q = p and a normaliser
// that sums a. Backward: dk = da phi'(k), dq = dq' phi'(q).
//
// Cost per token and head: recurrence.h's. State: d^2 + d values. Saved: 1 value per token and
// head.
#pragma once

#include "mixers/features.h"
#include "mixers/layout.h"
#include "mixers/linear/options.h"
#include "mixers/recurrence/form.h"

namespace vla_bench::mixers {

struct LinearRule {
  static constexpr double kFloor = 1e-6;  // of step 5's denominator

  RecurrenceForm form() const {
    return {.normaliser = RecurrenceForm::Normaliser::sums_a, .floor = kFloor};
  }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    auto query = token.q();  // 1
    apply_feature_map(token, FeatureMap::elu1, query);
    token.put_q(query);
    auto key = token.k();
    apply_feature_map(token, FeatureMap::elu1, key);
    token.put_a(key);
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    auto gradient = token.dq();
    feature_map_backward(token, FeatureMap::elu1, token.q(), gradient);
    token.put_dq(gradient);
    gradient = token.da();
    feature_map_backward(token, FeatureMap::elu1, token.k(), gradient);
    token.put_dk(gradient);
  }
  template <class Token, class Channels>
  void bind_key(const Token& token, const Channels& key) const {
    token.put_a(key);
  }
};

}  // namespace vla_bench::mixers

namespace vla_bench {

inline MixerLayout layout(const LinearOptions& /*options*/, Index /*d_h*/) { return {}; }
template <class Body>
void with_rule(const LinearOptions& /*options*/, Index /*d_h*/, const Body& body) {
  body(mixers::LinearRule{});
}

}  // namespace vla_bench
