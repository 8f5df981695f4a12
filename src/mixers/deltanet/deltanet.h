// DeltaNet: linear attention with the delta rule, in two variants.
//   paper     the gated form the paper compares with (arXiv:2605.11196): the gate scales rows of
//             the carried-over state, the prediction reads the ungated state
//   standard  Yang et al. 2024, arXiv:2406.06484: one write strength a head
//
// unit(x) = x / max(|x|, 1e-12); q, k, v are raw projections (d); Wg gives gate logits (d), Wb a
// strength's logit. What a rule binds to recurrence.h:
//                   paper                                standard
//   key             k' = unit(k)                         k' = unit(silu(k))                  (d)
//   query           q' = phi(q), phi = ELU + 1           q' = unit(silu(q))                  (d)
//   gate            g = sigmoid(Wg x)  (d)               b = sigmoid(Wb x)  (scalar)
//   residual        r = v - S_{t-1} k'                   the same
//   write           S = diag(g) S_{t-1} + r k'^T         S = S_{t-1} + b r k'^T
//   recurrence.h    r = a = k', q = q', decay rows g     r = k', a = b k', q = q'
//
// Backward, from the recurrence's gradients: dk' = da + dr (paper), b da + dr with db = da . k'
// (standard), through unit (and silu) to dk; dq' to dq; dg, db through the sigmoid to the logits.
//
// Cost per token and head, multiply-adds: recurrence.h's, with the gradient of the gates (paper).
#pragma once

#include "mixers/deltanet/options.h"
#include "mixers/features.h"
#include "mixers/gates.h"
#include "mixers/layout.h"
#include "mixers/recurrence/form.h"

namespace vla_bench::mixers {

/// The paper's variant: a gate per value channel.
struct PaperDeltaNetRule {
  RecurrenceForm form() const {
    return {.residual = RecurrenceForm::Residual::along_a,
            .decay = Decay::rows,
            .decay_has_gradient = true};
  }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    auto query = token.q();  // 1
    apply_feature_map(token, FeatureMap::elu1, query);
    token.put_q(query);
    auto key = token.k();
    make_unit(token, key);
    token.put_a(key);
    auto gate = token.more(0);
    token.each([&](auto i) { gate[i] = sigmoid(token, gate[i]); });
    token.put_decay(gate);
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    auto dquery = token.dq();
    feature_map_backward(token, FeatureMap::elu1, token.q(), dquery);
    token.put_dq(dquery);
    auto key = token.k();
    const auto length = make_unit(token, key);
    auto dkey = token.da();
    unit_backward(token, key, length, dkey);
    token.put_dk(dkey);
    const auto logit = token.more(0);
    auto dgate = token.ddecay();
    token.each([&](auto i) {
      const auto gate = sigmoid(token, logit[i]);
      dgate[i] *= gate * (1 - gate);
    });
    token.put_dmore(0, dgate);
  }
  template <class Token, class Channels>
  void bind_key(const Token& token, const Channels& key) const {
    token.put_a(key);
    Channels open;
    token.each([&](auto i) { open[i] = 1; });
    token.put_decay(open);
  }
};

/// The standard variant: a write strength per head.
struct StandardDeltaNetRule {
  bool as_given;  // gates.h

  RecurrenceForm form() const { return {.residual = RecurrenceForm::Residual::along_r}; }

  template <class Token>
  VLA_HOST_DEVICE void bind(const Token& token) const {
    token.put_q(UnitSilu<Token>(token, token.q(), as_given).y);  // 1
    auto key = UnitSilu<Token>(token, token.k(), as_given).y;
    token.put_r(key);
    const auto beta = Strength<Token>(token, token.more_scalar(0), as_given).beta;
    token.each([&](auto i) { key[i] *= beta; });
    token.put_a(key);
  }
  template <class Token>
  VLA_HOST_DEVICE void unbind(const Token& token) const {
    // Reads first: a GPU would wait for those that stand behind a write.
    const auto q = token.q();
    const auto k = token.k();
    auto dquery = token.dq();
    auto dkey = token.dr();
    const auto dwrite = token.da();
    const Strength<Token> strength(token, token.more_scalar(0), as_given);

    UnitSilu<Token>(token, q, as_given).backward(token, q, as_given, dquery);
    token.put_dq(dquery);

    const UnitSilu<Token> key(token, k, as_given);
    token.put_dmore(0, token.dot(dwrite, key.y) * strength.slope);
    token.each([&](auto i) { dkey[i] += strength.beta * dwrite[i]; });
    key.backward(token, k, as_given, dkey);
    token.put_dk(dkey);
  }
  template <class Token, class Channels>
  void bind_key(const Token& token, const Channels& key) const {
    token.put_r(key);
    token.put_a(key);
  }
};

}  // namespace vla_bench::mixers

namespace vla_bench {

/// Gates a value channel with Wg, or the strength of a head's writes with Wb.
inline MixerLayout layout(const DeltaNetOptions& options, Index d_h) {
  if (options.variant == DeltaNetVariant::paper) return {.more = {{.name = "Wg", .width = d_h}}};
  return {.more = {{.name = "Wb", .width = 1}},
          .output_norm = true,
          .rms_epsilon = MixerLayout::kRmsEpsilon * static_cast<double>(d_h)};
}
template <class Body>
void with_rule(const DeltaNetOptions& options, Index /*d_h*/, const Body& body) {
  if (options.variant == DeltaNetVariant::paper) {
    body(mixers::PaperDeltaNetRule{});
  } else {
    body(mixers::StandardDeltaNetRule{options.as_given});
  }
}

}  // namespace vla_bench
