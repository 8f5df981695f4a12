// Mamba-2's memory (Dao and Gu 2024, arXiv:2405.21060) with a scalar gate: linear attention without
// normaliser on a state that every head lets fade at a rate of the token.
//
// One lane, S_0 = 0 (d, d); q, k, v are raw projections (d), x the logit of Wa:
//   1. q' = unit(silu(q)),  k' = unit(silu(k))                    (d)
//   2. alpha = exp(-exp(A_log) softplus(x + dt_bias))             A_log, dt_bias a number per head
//   3. S_t = alpha S_{t-1} + v k'^T                               (d, d)
//   4. o = S_t q'                                                 (d)
// This is recurrence.h's without a residual: a = k', q = q', a decay per head. With alpha = 1 it is
// linear attention with phi = unit(silu) and no normaliser.
//
// Backward: dk' = da, dalpha = dD, through unit and silu to k and q and through the decay to x,
// A_log and dt_bias. A parameter's gradient sums over tokens and batch.
//
// The published block has keys and queries of any length, scales v by softplus(x + dt_bias), adds a
// multiple of v to o and gates it; this layer has the keys of the other rules, and an output norm.
//
// The recall probe writes with alpha = 1.
//
// Cost per token and head: recurrence.h's, with the gradient of the decay. State: d^2 values.
#pragma once

#include <string_view>

#include "mixers/gates.h"
#include "mixers/layout.h"
#include "mixers/recurrence/form.h"

namespace vla_bench {

struct Mamba2Options {
  static constexpr std::string_view name = "mamba2";
  static constexpr std::string_view title = "Mamba-2";
  static constexpr std::string_view colour = "#661100";
  static constexpr double most_step_ms = 0.75;

  template <class V>
  void visit(V&) {}
};

namespace mixers {

struct Mamba2Rule {
  RecurrenceForm form() const {
    return {.decay = Decay::head,
            .decay_has_gradient = true,
            .parameters = head_decay_parameter_count(false)};
  }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    token.put_q(UnitSilu<Token>(token, token.q(), false).y);  // 1
    token.put_a(UnitSilu<Token>(token, token.k(), false).y);
    token.put_decay(HeadDecay<Token>(token, 0, false).alpha);  // 2
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    const auto q = token.q();
    const auto k = token.k();
    auto dquery = token.dq();
    auto dkey = token.da();
    const auto ddecay = token.ddecay_scalar();
    const HeadDecay<Token> decay(token, 0, false);
    UnitSilu<Token>(token, q, false).backward(token, q, false, dquery);
    token.put_dq(dquery);
    UnitSilu<Token>(token, k, false).backward(token, k, false, dkey);
    token.put_dk(dkey);
    decay.backward(token, ddecay);
  }
  template <class Token, class Channels>
  VLA_HOST_DEVICE void bind_key(const Token& token, const Channels& key) const {
    token.put_a(key);
    token.put_decay(1);
  }
};

}  // namespace mixers

inline MixerLayout layout(const Mamba2Options& /*options*/, Index /*d_h*/) {
  return {.more = {{.name = "Wa", .width = 1, .bias = false}},
          .parameters = mixers::head_decay_parameters(),
          .output_norm = true};
}
template <class Body>
void with_rule(const Mamba2Options& /*options*/, Index /*d_h*/, const Body& body) {
  body(mixers::Mamba2Rule{});
}

}  // namespace vla_bench
