// Preconditioned Gated DeltaNet (arXiv:2604.21100): Gated DeltaNet that writes along m * k, where m
// shortens the channels that keys have used much and lengthens those that they have not.
//
// One lane, S_0 = 0 (d, d), p_0 = 0 (d); q, k, v are raw projections (d), b, x, b_p, x_p logits of
// Wb, Wa, Wbp and Wap; * goes channel by channel:
//   1. q' = unit(silu(q)),  k' = unit(silu(k))                    (d)
//   2. beta = sigmoid(b),  beta_p = sigmoid(b_p)
//   3. alpha and g, the decays of S and p, as in gated_deltanet, each with an A_log and a dt_bias
//   4. p_t = g p_{t-1} + beta_p k' * k'                           use of the channels (d)
//   5. y = ln(p_t + 1e-6) + 0.2;  m = 1.5^(-y / (1 + |y|))        1/1.5 < m < 1.5  (d)
//   6. S' = alpha S_{t-1};  S_t = S' + beta (v - S' k') (m * k')^T
//   7. o = S_t q'
// This is recurrence.h's with a decay per head and a running sum p: r = alpha k', a = beta m * k',
// q = q'. Without 4 and 5, m = 1, it is Gated DeltaNet.
//
// Backward, from the recurrence's gradients:
//   6. dm = beta da * k';  dk' = alpha dr + beta m * da;  dbeta = da . (m * k');
//      dalpha = dD + dr . k'
//   5. dp = -ln(1.5) m / ((1 + |y|)^2 (p + 1e-6)) * dm
//   4. dp accumulates over tokens, against time: dp_t += g_{t+1} dp_{t+1};  dg = dp . p_{t-1};
//      dbeta_p = dp . (k' * k');  dk' += 2 beta_p dp * k'
// then through gates, unit and silu.
//
// The published layer learns one number in the place of the 0.2, or does not, as here; output norm
// and epsilon are Gated DeltaNet's.
//
// The recall probe writes with alpha = beta = g = beta_p = 1: p is the sum of k * k over all keys
// written so far, the new one included.
//
// Cost per token and head: recurrence.h's, with the gradient of the decay. State: d^2 + d values.
#pragma once

#include <array>
#include <string_view>

#include "mixers/gates.h"
#include "mixers/layout.h"
#include "mixers/recurrence/form.h"

namespace vla_bench {

struct PreconditionedGatedDeltaNetOptions {
  static constexpr std::string_view name = "preconditioned_gated_deltanet";
  static constexpr std::string_view title = "Preconditioned GDN";
  static constexpr std::string_view colour = "#5A5A00";
  static constexpr double most_step_ms = 0.9;

  bool as_given = false;  // not a key: inputs as golden files hold them (gates.h)

  template <class V>
  void visit(V&) {}

  /// Golden files of the rule: these inputs beside q, k and v. Keys and queries are not yet of unit
  /// length in them.
  static constexpr std::array<std::string_view, 4> given = {"beta", "log_decay", "beta_p",
                                                            "log_decay_p"};
  static PreconditionedGatedDeltaNetOptions of_given() { return {.as_given = true}; }
};

namespace mixers {

/// Step 5.
template <class Token>
struct Preconditioner {
  using Channels = typename Token::Channels;
  using T = typename Token::Scalar;

  VLA_HOST_DEVICE Preconditioner(const Token& token, const Channels& p) : m(p), slope(p) {
    constexpr T log_base = static_cast<T>(0.40546510810816438);  // ln 1.5
    token.each([&](auto i) {
      const T use = p[i] + static_cast<T>(1e-6);
      const T y = token.log(use) + static_cast<T>(0.2);
      const T scale = 1 / (1 + (y < 0 ? -y : y));
      m[i] = token.exp(-log_base * y * scale);
      slope[i] = -log_base * m[i] * scale * scale / use;
    });
  }

  Channels m;
  Channels slope;  // dm / dp
};

struct PreconditionedGatedDeltaNetRule {
  static constexpr bool kHasRunningSum = true;

  bool as_given;

  RecurrenceForm form() const {
    return {.residual = RecurrenceForm::Residual::along_r,
            .decay = Decay::head,
            .decay_has_gradient = true,
            .has_running_sum = true,
            .parameters = 2 * head_decay_parameter_count(as_given)};
  }
  Index own_state_size(Index d) const { return d; }

  template <class Token>
  VLA_HOST_DEVICE typename Token::Scalar bind_term(const Token& token) const {
    const UnitFeature<Token> key(token, token.k(), map());
    const auto beta_p = Strength<Token>(token, token.more_scalar(kBetaP), as_given).beta;
    auto term = key.y;  // 4
    token.each([&](auto i) { term[i] *= beta_p * key.y[i]; });
    token.put_own(term);
    return HeadDecay<Token>(token, kDecayP, as_given, kParametersP).alpha;
  }
  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    token.put_q(UnitFeature<Token>(token, token.q(), map()).y);  // 1
    const UnitFeature<Token> key(token, token.k(), map());
    const auto beta = Strength<Token>(token, token.more_scalar(kBeta), as_given).beta;  // 2
    const auto alpha = HeadDecay<Token>(token, kDecay, as_given).alpha;                 // 3
    const Preconditioner<Token> preconditioner(token, token.own());                     // 5
    auto r = key.y, a = key.y;
    token.each([&](auto i) {
      r[i] *= alpha;
      a[i] *= beta * preconditioner.m[i];
    });
    token.put_r(r);
    token.put_a(a);
    token.put_decay(alpha);
  }

  template <class Token>
  VLA_HOST_DEVICE typename Token::Channels unbind_sum(const Token& token) const {
    auto gradient = token.da();
    const UnitFeature<Token> key(token, token.k(), map());
    const auto beta = Strength<Token>(token, token.more_scalar(kBeta), as_given).beta;
    const Preconditioner<Token> preconditioner(token, token.own());
    token.each([&](auto i) { gradient[i] *= beta * key.y[i] * preconditioner.slope[i]; });
    return gradient;
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    // Reads first: a GPU would wait for those that stand behind a write.
    const auto q = token.q();
    const auto k = token.k();
    auto dquery = token.dq();
    auto dkey = token.dr();
    const auto dwrite = token.da();
    const auto dp = token.down();
    const auto p_before = token.own_before();
    const auto ddecay = token.ddecay_scalar();
    const Preconditioner<Token> preconditioner(token, token.own());
    const Strength<Token> strength(token, token.more_scalar(kBeta), as_given);
    const Strength<Token> strength_p(token, token.more_scalar(kBetaP), as_given);
    const HeadDecay<Token> decay(token, kDecay, as_given);
    const HeadDecay<Token> decay_p(token, kDecayP, as_given, kParametersP);

    UnitFeature<Token>(token, q, map()).backward(token, q, map(), dquery);
    token.put_dq(dquery);

    const UnitFeature<Token> key(token, k, map());
    auto direction = key.y, squares = key.y;
    token.each([&](auto i) {
      direction[i] *= preconditioner.m[i];
      squares[i] *= key.y[i];
    });
    token.put_dmore(kBeta, token.dot(dwrite, direction) * strength.slope);
    token.put_dmore(kBetaP, token.dot(dp, squares) * strength_p.slope);
    decay.backward(token, ddecay + token.dot(dkey, key.y));
    decay_p.backward(token, token.dot(dp, p_before));
    token.each([&](auto i) {
      dkey[i] = decay.alpha * dkey[i] + strength.beta * preconditioner.m[i] * dwrite[i] +
                2 * strength_p.beta * dp[i] * key.y[i];
    });
    key.backward(token, k, map(), dkey);
    token.put_dk(dkey);
  }

  template <class Token, class Channels>
  typename Token::Scalar bind_key_term(const Token& token, const Channels& key) const {
    auto squares = key;
    token.each([&](auto i) { squares[i] *= key[i]; });
    token.put_own(squares);
    return 1;
  }
  template <class Token, class Channels>
  void bind_key(const Token& token, const Channels& key) const {
    token.put_r(key);
    auto direction = key;
    const Preconditioner<Token> preconditioner(token, token.own());
    token.each([&](auto i) { direction[i] *= preconditioner.m[i]; });
    token.put_a(direction);
    token.put_decay(1);
  }

 private:
  static constexpr int kBeta = 0, kDecay = 1, kBetaP = 2, kDecayP = 3;  // beyond q, k and v
  static constexpr int kParametersP = 2;                                // of the decay of p

  VLA_HOST_DEVICE FeatureMap map() const {
    return as_given ? FeatureMap::identity : FeatureMap::silu;
  }
};

}  // namespace mixers

inline MixerLayout layout(const PreconditionedGatedDeltaNetOptions& /*options*/, Index d_h) {
  return {.more = {{.name = "Wb", .width = 1},
                   {.name = "Wa", .width = 1, .bias = false},
                   {.name = "Wbp", .width = 1},
                   {.name = "Wap", .width = 1, .bias = false}},
          .parameters = {{.name = "A_log", .initialisation = Initialisation::decay_rate},
                         {.name = "dt_bias", .initialisation = Initialisation::decay_step},
                         {.name = "A_log_p", .initialisation = Initialisation::decay_rate},
                         {.name = "dt_bias_p", .initialisation = Initialisation::decay_step}},
          .output_norm = true,
          .rms_epsilon = MixerLayout::kRmsEpsilon * static_cast<double>(d_h)};
}
template <class Body>
void with_rule(const PreconditionedGatedDeltaNetOptions& options, Index /*d_h*/, const Body& body) {
  body(mixers::PreconditionedGatedDeltaNetRule{options.as_given});
}

}  // namespace vla_bench
