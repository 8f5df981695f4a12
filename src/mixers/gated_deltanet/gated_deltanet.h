// Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464): the delta rule on a state that every head
// lets fade at a rate of the token.
//
// One lane, S_0 = 0 (d, d); q, k, v are raw projections (d), b and x logits of Wb and Wa:
//   1. q' = unit(silu(q)),  k' = unit(silu(k))                    (d)
//   2. beta = sigmoid(b)                                          strength of the write
//   3. alpha = exp(-exp(A_log) softplus(x + dt_bias))             decay; A_log, dt_bias a number per
//                                                                 head (arXiv:2405.21060)
//   4. S' = alpha S_{t-1};  S_t = S' + beta (v - S' k') k'^T      (d, d)
//   5. o = S_t q'                                                 (d)
// This is recurrence.h's with a decay per head: r = alpha k', a = beta k', q = q'. With alpha = 1
// it is the standard DeltaNet.
//
// Backward, from the recurrence's gradients: dk' = alpha dr + beta da, dbeta = da . k',
// dalpha = dD + dr . k', through the gates to b, x, A_log and dt_bias, through unit and silu to k
// and q. A parameter's gradient sums over tokens and batch.
//
// Output RMSNorm and epsilon as the standard DeltaNet's layer; the published one has an output gate
// beside it, which this layer does not.
//
// The recall probe writes with alpha = beta = 1.
//
// Cost per token and head: recurrence.h's, with the gradient of the decay. State: d^2 values.
#pragma once

#include <array>
#include <string_view>

#include "mixers/gates.h"
#include "mixers/layout.h"
#include "mixers/recurrence/form.h"

namespace vla_bench {

struct GatedDeltaNetOptions {
  static constexpr std::string_view name = "gated_deltanet";
  static constexpr std::string_view title = "Gated DeltaNet";
  static constexpr std::string_view colour = "#999933";
  static constexpr double most_step_ms = 0.8;

  bool as_given = false;  // not a key: inputs as golden files hold them (gates.h)

  template <class V>
  void visit(V&) {}

  /// Golden files of the rule: these inputs beside q, k and v.
  static constexpr std::array<std::string_view, 2> given = {"beta", "log_decay"};
  static GatedDeltaNetOptions of_given() { return {.as_given = true}; }
};

namespace mixers {

struct GatedDeltaNetRule {
  bool as_given;

  RecurrenceForm form() const {
    return {.residual = RecurrenceForm::Residual::along_r,
            .decay = Decay::head,
            .decay_has_gradient = true,
            .parameters = head_decay_parameter_count(as_given)};
  }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    token.put_q(UnitSilu<Token>(token, token.q(), as_given).y);  // 1
    const UnitSilu<Token> key(token, token.k(), as_given);
    const auto beta = Strength<Token>(token, token.more_scalar(kBeta), as_given).beta;  // 2
    const auto alpha = HeadDecay<Token>(token, kDecay, as_given).alpha;                 // 3
    auto r = key.y, a = key.y;
    token.each([&](auto i) {
      r[i] *= alpha;
      a[i] *= beta;
    });
    token.put_r(r);
    token.put_a(a);
    token.put_decay(alpha);
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    // Reads first: a GPU would wait for those that stand behind a write.
    const auto q = token.q();
    const auto k = token.k();
    auto dquery = token.dq();
    auto dkey = token.dr();
    const auto dwrite = token.da();
    const auto ddecay = token.ddecay_scalar();
    const Strength<Token> strength(token, token.more_scalar(kBeta), as_given);
    const HeadDecay<Token> decay(token, kDecay, as_given);

    UnitSilu<Token>(token, q, as_given).backward(token, q, as_given, dquery);
    token.put_dq(dquery);

    const UnitSilu<Token> key(token, k, as_given);
    token.put_dmore(kBeta, token.dot(dwrite, key.y) * strength.slope);
    decay.backward(token, ddecay + token.dot(dkey, key.y));
    token.each([&](auto i) { dkey[i] = decay.alpha * dkey[i] + strength.beta * dwrite[i]; });
    key.backward(token, k, as_given, dkey);
    token.put_dk(dkey);
  }
  template <class Token, class Channels>
  void bind_key(const Token& token, const Channels& key) const {
    token.put_r(key);
    token.put_a(key);
    token.put_decay(1);
  }

 private:
  static constexpr int kBeta = 0, kDecay = 1;  // projections beyond q, k and v
};

}  // namespace mixers

inline MixerLayout layout(const GatedDeltaNetOptions& /*options*/, Index d_h) {
  return {.more = {{.name = "Wb", .width = 1}, {.name = "Wa", .width = 1, .bias = false}},
          .parameters = mixers::head_decay_parameters(),
          .output_norm = true,
          .rms_epsilon = MixerLayout::kRmsEpsilon * static_cast<double>(d_h)};
}
template <class Body>
void with_rule(const GatedDeltaNetOptions& options, Index /*d_h*/, const Body& body) {
  body(mixers::GatedDeltaNetRule{options.as_given});
}

}  // namespace vla_bench
