// Retention (RetNet, Sun et al. 2023, arXiv:2307.08621), recurrent form without its rotation of
// queries and keys: linear attention that forgets at a rate of its own in every head.
//
// One lane (batch element and head h, from 0), S_0 = 0 (d, d); q, k, v are raw projections (d):
//   1. gamma_h = 1 - 2^(-5 - h)               a constant
//   2. S_t = gamma_h S_{t-1} + v_t k_t^T      (d, d)
//   3. o_t = S_t q_t / sqrt(d)                (d)
// This is recurrence.h's without a residual: a = k, q = q / sqrt(d), a decay per head whose
// gradient nobody wants. Backward: dk = da, dq = dq' / sqrt(d). The layer has an output LayerNorm.
//
// The recall probe (HeadMemory::write) writes as a token does: S <- gamma_h S + value key^T.
//
// Cost per token and head: recurrence.h's. State: d^2 values. Saved: nothing.
#pragma once

#include <cmath>
#include <string_view>

#include "core/array.h"
#include "mixers/features.h"
#include "mixers/layout.h"
#include "mixers/recurrence/form.h"

namespace vla_bench {

struct RetentionOptions {
  static constexpr std::string_view name = "retention";
  static constexpr std::string_view title = "retention";
  static constexpr std::string_view colour = "#CC79A7";
  static constexpr double most_step_ms = 0.65;

  template <class V>
  void visit(V&) {}
};

namespace mixers {

struct RetentionRule {
  RecurrenceForm form() const { return {.decay = Decay::head}; }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    auto query = token.q();
    scale(token, query);
    token.put_q(query);
    bind_key(token, token.k());
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    auto dq = token.dq();
    scale(token, dq);
    token.put_dq(dq);
    token.put_dk(token.da());
  }
  template <class Token, class Channels>
  VLA_HOST_DEVICE void bind_key(const Token& token, const Channels& key) const {
    using T = typename Token::Scalar;
    token.put_a(key);
    T forgotten = T(1) / 32;  // 2^(-5 - h)
    for (int h = 0; h < static_cast<int>(token.head()); ++h) forgotten /= 2;
    token.put_decay(1 - forgotten);
  }

  double inverse_root;  // 1 / sqrt(d)

 private:
  template <class Token, class Channels>
  VLA_HOST_DEVICE void scale(const Token& token, Channels& x) const {
    const auto factor = static_cast<typename Token::Scalar>(inverse_root);
    token.each([&](auto i) { x[i] *= factor; });
  }
};

}  // namespace mixers

inline MixerLayout layout(const RetentionOptions& /*options*/, Index /*d_h*/) {
  return {.output_norm = true};
}
template <class Body>
void with_rule(const RetentionOptions& /*options*/, Index d_h, const Body& body) {
  body(mixers::RetentionRule{1.0 / std::sqrt(static_cast<double>(d_h))});
}

}  // namespace vla_bench
