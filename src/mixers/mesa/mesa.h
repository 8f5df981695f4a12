// MesaNet's memory (arXiv:2506.05233): what it reads is the answer of ridge regression on all that
// it was shown, older tokens counting less.
//
// One lane, G_0 = 0 (d_v, d), H_0 = 0 (d, d); q, k (d) and v (d_v) are raw projections, b and x
// logits of Wb and Wa, l a parameter of the head (d):
//   1. q' = unit(silu(q)),  k' = unit(silu(k))                    (d)
//   2. beta = sigmoid(b),  gamma = sigmoid(x)
//      lambda = softplus(l + ln(e^0.75 - 1)) + 0.25               (d); l = 0 is lambda = 1
//   3. H_t = gamma H_{t-1} + beta k' k'^T                         what keys there were (d, d)
//   4. (H_t + diag(lambda)) x = q'                                (d)
//   5. G_t = gamma G_{t-1} + beta v k'^T                          (d_v, d)
//   6. o = G_t x
// 5 and 6 are recurrence.h's without a residual: a = beta k', q = x, a decay per head.
//
// Backward, from the recurrence's gradients, dx being that of its q:
//   4. (H_t + diag(lambda)) y = dx;  dq' = y;  dlambda = -x * y;  dH -= (y x^T + x y^T) / 2
//   3. dk' += 2 beta dH k';  dbeta += k'^T dH k';  dgamma += sum of dH * H_{t-1};  dH <- gamma dH
//   5. dk' += beta da;  dbeta += da . k';  dgamma += dD
// 3 and 4 are recurrence.h's too, for values k' that are read by x, with the upstream gradient -y.
//
// The CPU solves 4 by a Cholesky factorisation. A GPU takes the tokens of a chunk side by side, by
// conjugate gradients to a residual of 1e-7 of q' (mesa_solve.h).
//
// The published layer's d_h is 128 and its norm an RMSNorm.
//
// The recall probe writes with beta = gamma = 1 and reads with lambda = 1.
//
// Cost per token and head, multiply-adds: forward recurrence.h's 2 d d_v, H's update d^2, the
// factorisation d^3 / 6 and two triangular solves, d^2; backward recurrence.h's 6 d d_v, the
// factorisation and solves again, dH, dH k' and dgamma, 3 d^2. State: d^2 + d d_v values; the norm
// of tables is G's.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include "core/count.h"
#include "mixers/gates.h"
#include "mixers/layout.h"
#include "mixers/recurrence/form.h"

namespace vla_bench {

template <class T>
class MixerCore;

struct MesaOptions {
  static constexpr std::string_view name = "mesa";
  static constexpr std::string_view title = "MesaNet";
  static constexpr std::string_view colour = "#56B4E9";
  static constexpr double most_step_ms = 1.25;

  bool as_given = false;  // not a key: inputs as golden files hold them (gates.h)

  template <class V>
  void visit(V&) {}

  /// Golden files of the rule: these inputs beside q, k and v, and these parameters (H, d).
  static constexpr std::array<std::string_view, 2> given = {"beta", "log_decay"};
  static constexpr std::array<std::string_view, 1> given_parameters = {"lambda"};
  static MesaOptions of_given() { return {.as_given = true}; }
};

namespace mixers {

template <class T>
class RecurrentRule;
namespace cuda {
class CudaRule;
}

/// lambda of a head and its slope dlambda / dl; as given, l is lambda.
template <class Token>
struct Ridge {
  using Channels = typename Token::Channels;
  using T = typename Token::Scalar;

  VLA_HOST_DEVICE Ridge(const Token& token, const Channels& l, bool as_given)
      : lambda(l), slope(l) {
    constexpr T shift = static_cast<T>(0.11064653495964616);  // ln(e^0.75 - 1)
    token.each([&](auto i) {
      slope[i] = as_given ? T(1) : sigmoid(token, l[i] + shift);
      if (!as_given) lambda[i] = softplus(token, l[i] + shift) + static_cast<T>(0.25);
    });
  }

  Channels lambda, slope;
};

/// Steps 1, 2 and 5, and the way back from the gradients of all rows. Who solves 4 takes k' from
/// row r, beta k' from a, gamma from the decay and q' from own, and sets q = x. For the way back
/// own is x, dq is -y, and dr, da and the decay's gradient are those of G's and of H's recurrence.
struct MesaRule {
  bool as_given;

  RecurrenceForm form() const {
    return {.decay = Decay::head,
            .decay_has_gradient = true,
            .solves_reads = true,
            .parameters = 1,
            .channel_parameters = 1};
  }
  Index own_state_size(Index d) const { return d * d; }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    token.put_own(UnitSilu<Token>(token, token.q(), as_given).y);
    const UnitSilu<Token> key(token, token.k(), as_given);
    const auto beta = Strength<Token>(token, token.more_scalar(kBeta), as_given).beta;
    token.put_r(key.y);
    auto a = key.y;
    token.each([&](auto i) { a[i] *= beta; });
    token.put_a(a);
    token.put_decay(decay(token).gamma);
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
    auto dridge = token.own();
    const Ridge<Token> ridge(token, token.parameter_channels(0), as_given);
    const Strength<Token> strength(token, token.more_scalar(kBeta), as_given);
    const Decayed<typename Token::Scalar> gamma = decay(token);

    token.each([&](auto i) {
      dridge[i] *= dquery[i] * ridge.slope[i];
      dquery[i] = -dquery[i];
    });
    token.put_dparameter(0, dridge);
    UnitSilu<Token>(token, q, as_given).backward(token, q, as_given, dquery);
    token.put_dq(dquery);

    const UnitSilu<Token> key(token, k, as_given);
    token.put_dmore(kBeta, token.dot(dwrite, key.y) * strength.slope);
    token.put_dmore(kDecay, ddecay * gamma.slope);
    token.each([&](auto i) { dkey[i] += strength.beta * dwrite[i]; });
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

  template <class T>
  struct Decayed {
    T gamma, slope;  // of the projection
  };
  /// As given the projection is log gamma.
  template <class Token>
  VLA_HOST_DEVICE Decayed<typename Token::Scalar> decay(const Token& token) const {
    const auto x = token.more_scalar(kDecay);
    const auto gamma = as_given ? token.exp(x) : sigmoid(token, x);
    return {gamma, as_given ? gamma : gamma * (1 - gamma)};
  }
};

}  // namespace mixers

inline MixerLayout layout(const MesaOptions& /*options*/, Index d_h) {
  return {.more = {{.name = "Wb", .width = 1}, {.name = "Wa", .width = 1}},
          .parameters = {{.name = "lambda_raw", .shape = {d_h}}},
          .output_norm = true};
}
template <class Body>
void with_rule(const MesaOptions& options, Index /*d_h*/, const Body& body) {
  body(mixers::MesaRule{options.as_given});
}

/// Multiply-adds of a token and head for H and the solves.
inline Index chain_multiply_adds(const MesaOptions& /*options*/, LatencyPass pass, Index d) {
  return (pass == LatencyPass::forward ? 2 : 4) * d * d + d * d * d / 6;
}

/// The rule with its solves: production (float, double), reference, and on a GPU.
template <class T>
std::unique_ptr<mixers::RecurrentRule<T>> make_chain_rule(const MesaOptions& options, Index d_h);
std::unique_ptr<mixers::RecurrentRule<double>> make_reference_rule(const MesaOptions& options,
                                                                   Index d_h);
std::unique_ptr<mixers::cuda::CudaRule> make_cuda_chain_rule(const MesaOptions& options, Index d_h,
                                                             mixers::Chunks chunks);

}  // namespace vla_bench
