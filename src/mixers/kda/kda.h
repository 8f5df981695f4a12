// Kimi Delta Attention (Kimi Team 2025, arXiv:2510.26692): the delta rule on a state in which every
// key channel fades at a rate of its own.
//
// One lane, S_0 = 0 (d, d); q, k, v are raw projections (d), b the logit of Wb, x the logits of Wa
// (d):
//   1. q' = unit(silu(q)),  k' = unit(silu(k))                    (d)
//   2. beta = sigmoid(b)                                          strength of the write
//   3. alpha_j = exp(-exp(A_log) softplus(x_j + dt_bias_j))       (d); A_log a number per head,
//                                                                 dt_bias one per channel
//   4. S' = S_{t-1} diag(alpha);  S_t = S' + beta (v - S' k') k'^T      (d, d)
//   5. o = S_t q'                                                 (d)
// This is recurrence.h's with a decay per key channel: r = alpha k' elementwise, a = beta k',
// q = q'. With equal channels of alpha it is gated_deltanet, with alpha = 1 the standard DeltaNet.
//
// Backward, from the recurrence's gradients, products elementwise: dk' = alpha dr + beta da,
// dbeta = da . k', dalpha = dD + dr k', through the gates to b, x, A_log and dt_bias, through unit
// and silu to k and q. A parameter's gradient sums over tokens and batch.
//
// Wa is two maps, through d channels, as published. Output RMSNorm and epsilon as the standard
// DeltaNet's layer; the published one has an output gate beside it, which this layer does not.
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

struct KdaOptions {
  static constexpr std::string_view name = "kda";
  static constexpr std::string_view title = "KDA";
  static constexpr std::string_view colour = "#882255";
  static constexpr double most_step_ms = 0.9;

  bool as_given = false;  // not a key: inputs as golden files hold them (gates.h)

  template <class V>
  void visit(V&) {}

  /// Golden files of the rule: these inputs beside q, k and v.
  static constexpr std::array<std::string_view, 2> given = {"beta", "log_decay"};
  static KdaOptions of_given() { return {.as_given = true}; }
};

namespace mixers {

/// alpha of step 3; as given, x is log alpha.
template <class Token>
struct KeyDecay {
  using Channels = typename Token::Channels;
  using T = typename Token::Scalar;

  VLA_HOST_DEVICE KeyDecay(const Token& token, int from, bool as_given)
      : alpha(token.more(from)), from_(from), as_given_(as_given) {
    if (!as_given) {
      rate_ = token.exp(token.parameter(0));
      const Channels bias = token.parameter_channels(1);
      token.each([&](auto i) { alpha[i] = -rate_ * softplus(token, alpha[i] + bias[i]); });
    }
    token.each([&](auto i) { alpha[i] = token.exp(alpha[i]); });
  }
  /// dalpha <- dx; puts the gradients of x and of both parameters.
  VLA_HOST_DEVICE void backward(const Token& token, Channels& dalpha) const {
    token.each([&](auto i) { dalpha[i] *= alpha[i]; });
    if (!as_given_) {
      // d log alpha / d A_log = log alpha = -rate softplus, d log alpha / d x = -rate sigmoid.
      Channels log_alpha = token.more(from_);
      const Channels bias = token.parameter_channels(1);
      Channels slope = log_alpha;
      token.each([&](auto i) {
        const T x = log_alpha[i] + bias[i];
        log_alpha[i] = -rate_ * softplus(token, x);
        slope[i] = -rate_ * sigmoid(token, x);
      });
      token.put_dparameter(0, token.dot(dalpha, log_alpha));
      token.each([&](auto i) { dalpha[i] *= slope[i]; });
      token.put_dparameter(1, dalpha);
    }
    token.put_dmore(from_, dalpha);
  }

  Channels alpha;

 private:
  int from_;
  bool as_given_;
  T rate_ = 1;
};

struct KdaRule {
  bool as_given;

  RecurrenceForm form() const {
    return {.residual = RecurrenceForm::Residual::along_r,
            .decay = Decay::columns,
            .decay_has_gradient = true,
            .parameters = as_given ? 0 : 2,
            .channel_parameters = as_given ? 0 : 1};
  }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    token.put_q(UnitSilu<Token>(token, token.q(), as_given).y);  // 1
    const UnitSilu<Token> key(token, token.k(), as_given);
    const auto beta = Strength<Token>(token, token.more_scalar(kBeta), as_given).beta;  // 2
    const KeyDecay<Token> decay(token, kDecay, as_given);                               // 3
    auto r = key.y, a = key.y;
    token.each([&](auto i) {
      r[i] *= decay.alpha[i];
      a[i] *= beta;
    });
    token.put_r(r);
    token.put_a(a);
    token.put_decay(decay.alpha);
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    // Reads first: a GPU would wait for those that stand behind a write.
    const auto q = token.q();
    const auto k = token.k();
    auto dquery = token.dq();
    auto dkey = token.dr();
    const auto dwrite = token.da();
    auto dalpha = token.ddecay();
    const Strength<Token> strength(token, token.more_scalar(kBeta), as_given);
    const KeyDecay<Token> decay(token, kDecay, as_given);

    UnitSilu<Token>(token, q, as_given).backward(token, q, as_given, dquery);
    token.put_dq(dquery);

    const UnitSilu<Token> key(token, k, as_given);
    token.put_dmore(kBeta, token.dot(dwrite, key.y) * strength.slope);
    token.each([&](auto i) {
      dalpha[i] += dkey[i] * key.y[i];
      dkey[i] = decay.alpha[i] * dkey[i] + strength.beta * dwrite[i];
    });
    decay.backward(token, dalpha);
    key.backward(token, k, as_given, dkey);
    token.put_dk(dkey);
  }
  template <class Token, class Channels>
  void bind_key(const Token& token, const Channels& key) const {
    token.put_r(key);
    token.put_a(key);
    Channels open;
    token.each([&](auto i) { open[i] = 1; });
    token.put_decay(open);
  }

 private:
  static constexpr int kBeta = 0, kDecay = 1;  // projections beyond q, k and v
};

}  // namespace mixers

inline MixerLayout layout(const KdaOptions& /*options*/, Index d_h) {
  return {.more = {{.name = "Wb", .width = 1},
                   {.name = "Wa", .width = d_h, .bias = false, .through = d_h}},
          .parameters = {{.name = "A_log", .initialisation = Initialisation::decay_rate},
                         {.name = "dt_bias",
                          .shape = {d_h},
                          .initialisation = Initialisation::decay_step}},
          .output_norm = true,
          .rms_epsilon = MixerLayout::kRmsEpsilon * static_cast<double>(d_h)};
}
template <class Body>
void with_rule(const KdaOptions& options, Index /*d_h*/, const Body& body) {
  body(mixers::KdaRule{options.as_given});
}

}  // namespace vla_bench
