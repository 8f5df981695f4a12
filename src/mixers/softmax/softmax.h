// Causal softmax attention (Vaswani et al. 2017, arXiv:1706.03762), tiled, without a T x T matrix.
//
// One lane (batch element and head); s = 1 / sqrt(d):
//   1. scores   x_ij = s q_i . k_j                for j <= i
//   2. weights  p_ij = exp(x_ij - L_i),  L_i = log sum_{j<=i} exp x_ij
//   3. read     o_i = sum_{j<=i} p_ij v_j         (d)
//
// Backward, from the upstream g_i = dL/do_i (FlashAttention-2, arXiv:2307.08691):
//   3. dv_j = sum_{i>=j} p_ij g_i;   dp_ij = g_i . v_j
//   2. dx_ij = p_ij (dp_ij - D_i),   D_i = sum_j p_ij dp_ij = g_i . o_i
//   1. dq_i = s sum_{j<=i} dx_ij k_j;   dk_j = s sum_{i>=j} dx_ij q_i
// dq, dk and dv overwrite; within the tiles they accumulate, in the fixed order of the tiles.
//
// Production: query tiles by key tiles, tiles above the diagonal skipped. Forward keeps a running
// maximum m_i and sum l_i of exp(x_ij - m_i) per query (online softmax, arXiv:1805.02867) and saves
// m_i and 1 / l_i, from which the backward recomputes the weights of a tile. A row of dx sums to
// zero; the backward ensures that for the rounded values, too.
//
// Cost at position t (from 1), multiply-adds: forward 2 t d, backward 5 t d. State: the K V cache,
// 2 t d values. Saved: 2 values per token and head.
#pragma once

#include <memory>

#include "core/count.h"
#include "mixers/layout.h"
#include "mixers/softmax/options.h"

namespace vla_bench {
template <class T>
class MixerCore;
template <class T>
class HeadMemory;
struct Support;

/// One joint map to q, k and v, without convolutions, as attention has it in the benchmark of
/// arXiv:2312.04927.
inline MixerLayout layout(const SoftmaxOptions& /*options*/, Index /*d_h*/) {
  return {.qkv = {"qkv"}, .convolutions = false, .output = "o"};
}

/// Multiply-adds of a head over a whole sequence: 2 t d (forward) or 5 t d at position t.
inline Index multiply_adds(const SoftmaxOptions& /*options*/, LatencyPass pass, Index tokens,
                           Index d) {
  // tokens * (tokens + 1) is even; it is halved before the product can saturate.
  return times({pass == LatencyPass::forward ? 2 : 5, tokens % 2 == 0 ? tokens / 2 : tokens,
                tokens % 2 == 0 ? tokens + 1 : tokens / 2 + 1, d});
}

/// Numbers of a head's K V cache after `tokens`.
inline Index state_size(const SoftmaxOptions& /*options*/, Index tokens, Index d) {
  return times({2, tokens, d});
}

/// Production core, float and double; any d.
template <class T>
std::unique_ptr<MixerCore<T>> make_attention_core(const SoftmaxOptions& options, Index d_h);
/// The reference core: plain loops in double precision.
std::unique_ptr<MixerCore<double>> make_attention_reference(const SoftmaxOptions& options,
                                                            Index d_h);
/// The cores on a GPU (production, unfused or cudnn), and whether one exists.
std::unique_ptr<MixerCore<float>> make_attention_cuda_core(const SoftmaxOptions& options, Index d_h,
                                                           Implementation implementation);
Support attention_cuda_support(const SoftmaxOptions& options, Index d_h,
                               Implementation implementation);

namespace mixers {

/// The memory of one head: a growing cache, token by token.
template <class T>
std::unique_ptr<HeadMemory<T>> make_softmax_memory(Index d_h);

}  // namespace mixers
}  // namespace vla_bench
