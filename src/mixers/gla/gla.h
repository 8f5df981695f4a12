// Gated linear attention (Yang et al. 2023, arXiv:2312.06635): linear attention without normaliser
// on a state in which every key channel fades at a rate of its own.
//
// One lane, S_0 = 0 (d, d); q, k, v are raw projections (d), x the logits of Wa (d):
//   1. q' = unit(silu(q)),  k' = unit(silu(k))                    (d)
//   2. alpha_j = sigmoid(x_j)^(1/16)                              (d)
//   3. S_t = S_{t-1} diag(alpha) + v k'^T                         (d, d)
//   4. o = S_t q'                                                 (d)
// This is recurrence.h's without a residual and with a decay per key channel: a = k', q = q'. With
// equal channels of alpha it is mamba2 at that decay.
//
// Backward: dk' = da, through unit and silu to k and q; dx = dD alpha (1 - sigmoid(x)) / 16.
//
// Wa is two maps, through 16 channels. The published layer takes q and k without map and norm, with
// q / sqrt(d), and gates o beside its RMSNorm; this one has the keys of the other rules.
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

struct GlaOptions {
  static constexpr std::string_view name = "gla";
  static constexpr std::string_view title = "GLA";
  static constexpr std::string_view colour = "#332288";
  static constexpr double most_step_ms = 0.8;

  template <class V>
  void visit(V&) {}
};

namespace mixers {

struct GlaRule {
  static constexpr int kRoot = 16;  // of the sigmoid

  RecurrenceForm form() const { return {.decay = Decay::columns, .decay_has_gradient = true}; }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    token.put_q(UnitSilu<Token>(token, token.q(), false).y);  // 1
    token.put_a(UnitSilu<Token>(token, token.k(), false).y);
    token.put_decay(decay(token));  // 2
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    const auto q = token.q();
    const auto k = token.k();
    const auto x = token.more(0);
    auto dquery = token.dq();
    auto dkey = token.da();
    auto dx = token.ddecay();
    UnitSilu<Token>(token, q, false).backward(token, q, false, dquery);
    token.put_dq(dquery);
    UnitSilu<Token>(token, k, false).backward(token, k, false, dkey);
    token.put_dk(dkey);
    const auto alpha = decay(token);
    token.each([&](auto i) { dx[i] *= alpha[i] * sigmoid(token, -x[i]) / kRoot; });
    token.put_dmore(0, dx);
  }
  template <class Token, class Channels>
  void bind_key(const Token& token, const Channels& key) const {
    token.put_a(key);
    Channels open;
    token.each([&](auto i) { open[i] = 1; });
    token.put_decay(open);
  }

 private:
  /// sigmoid(x)^(1/16) = exp(-softplus(-x) / 16), which does not underflow.
  template <class Token>
  VLA_HOST_DEVICE static typename Token::Channels decay(const Token& token) {
    auto alpha = token.more(0);
    token.each([&](auto i) { alpha[i] = token.exp(-softplus(token, -alpha[i]) / kRoot); });
    return alpha;
  }
};

}  // namespace mixers

inline MixerLayout layout(const GlaOptions& /*options*/, Index d_h) {
  return {.more = {{.name = "Wa", .width = d_h, .through = 16}},
          .output_norm = true,
          .rms_epsilon = MixerLayout::kRmsEpsilon * static_cast<double>(d_h)};
}
template <class Body>
void with_rule(const GlaOptions& /*options*/, Index /*d_h*/, const Body& body) {
  body(mixers::GlaRule{});
}

}  // namespace vla_bench
