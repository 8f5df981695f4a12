// What a token's state is scaled by before it is written to.
#pragma once

namespace vla_bench::mixers {

/// The kinds of D_t in S_t = D_t(S_{t-1}) + (v_t - S_{t-1} r_t) a_t^T; S has value rows i and key
/// columns j. A decay's numbers per token and head are none, 1, d and d.
enum class Decay {
  none,     // S
  head,     // g S:           RetNet, Mamba-2, Gated DeltaNet
  rows,     // diag(g) S:     a number per value channel, as in the VLA paper's DeltaNet
  columns,  // S diag(g):     a number per key channel, as in gated linear attention
};

}  // namespace vla_bench::mixers
