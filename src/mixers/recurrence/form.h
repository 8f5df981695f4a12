// What a rule says about its recurrence (recurrence.h).
#pragma once

#include "core/index.h"

namespace vla_bench::mixers {

/// The kinds of D_t in S_t = D_t(S_{t-1}) + (v_t - S_{t-1} r_t) a_t^T; S has value rows i and key
/// columns j. A decay's numbers per token and head are none, 1, d and d.
enum class Decay {
  none,     // S
  head,     // g S:           RetNet, Mamba-2, Gated DeltaNet
  rows,     // diag(g) S:     a number per value channel, as in the VLA paper's DeltaNet
  columns,  // S diag(g):     a number per key channel, as in gated linear attention
};

/// The decay of M^T where M has `decay`.
constexpr Decay transposed(Decay decay) {
  if (decay == Decay::rows) return Decay::columns;
  return decay == Decay::columns ? Decay::rows : decay;
}

/// Which parts of the recurrence a rule uses.
struct RecurrenceForm {
  enum class Residual { none, along_r, along_a };  // along_a: r is a
  enum class Normaliser { none, sums_a, sums_f };  // sums_a: f is a

  Residual residual = Residual::none;
  Decay decay = Decay::none;
  bool decay_has_gradient = false;
  Normaliser normaliser = Normaliser::none;
  double floor = 0.0;            // of z . q
  bool has_running_sum = false;  // of the rule's own (HasRunningSum)
  bool solves_reads = false;     // reads solve with a matrix beside S (mesa)
  // Of the projections beyond q, k and v the first ones that have d channels and are stored as q is
  // where that is in bfloat16.
  Index vectors = 0;
  // Of its core that the rule reads: a number per head (H) each, but the last
  // `channel_parameters` of them, which have one per channel (H, d).
  Index parameters = 0, channel_parameters = 0;

  constexpr bool has_residual() const { return residual != Residual::none; }
  constexpr bool normalises() const { return normaliser != Normaliser::none; }
  /// Whether the recurrence's forward can be its normaliser's as well (recurrence_cuda.h).
  constexpr bool normalises_beside_rows() const {
    return normaliser == Normaliser::sums_a && !has_residual() && decay == Decay::none;
  }
  constexpr bool has_f() const { return normaliser == Normaliser::sums_f; }
  /// Numbers per head of parameter i, and of all before parameter `end`.
  constexpr Index parameter_width(Index i, Index d) const {
    return i < parameters - channel_parameters ? 1 : d;
  }
  constexpr Index parameters_width(Index end, Index d) const {
    Index width = 0;
    for (Index i = 0; i < end; ++i) width += parameter_width(i, d);
    return width;
  }
};

/// Numbers of a head's state: S (d_v, d), z (d) with a normaliser, and the rule's own.
template <class Rule>
constexpr Index state_size(const Rule& rule, Index d, Index d_v) {
  Index own = 0;
  if constexpr (requires { rule.own_state_size(d); }) own = rule.own_state_size(d);
  return d_v * d + (rule.form().normalises() ? d : 0) + own;
}

/// Whether a rule has a running sum of its own (cpu_token.h).
template <class Rule>
concept HasRunningSum = requires {
  requires Rule::kHasRunningSum;
};

/// When a GPU takes the tokens of a lane in chunks (chunked.h): where that exists, by a rule of
/// what is faster, or never.
enum class Chunks { never, by_rule, always };

}  // namespace vla_bench::mixers

namespace vla_bench {

/// Multiply-adds of a token and head in units of d d_v.
struct TokenCost {
  Index forward = 0, backward = 0;
};
/// The recurrence's, as recurrence.h counts it.
constexpr TokenCost token_cost(const mixers::RecurrenceForm& form) {
  return form.has_residual() ? TokenCost{3, 9} : TokenCost{2, 6};
}

}  // namespace vla_bench
