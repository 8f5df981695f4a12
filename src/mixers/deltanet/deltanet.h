// DeltaNet: linear attention with the delta rule, in two variants.
//   paper     the gated form the paper compares with (arXiv:2605.11196): the gate scales rows of
//   the
//             carried-over state, the prediction reads the ungated state
//   standard  Yang et al. 2024, arXiv:2406.06484: one write strength a head
//
// One lane (batch element and head), from S_0 = 0 (d, d). unit(x) = x / max(|x|, 1e-12);
// q, k, v are raw projections (d); aux is (d) in paper, a scalar in standard:
//                   paper                                standard
//   1. features     k'_t = unit(k_t)                     k'_t = unit(silu(k_t))             (d)
//                   q'_t = phi(q_t), phi = ELU + 1       q'_t = unit(silu(q_t))             (d)
//                   g_t = sigmoid(aux_t)  (d)            b_t = sigmoid(aux_t)  (scalar)
//                   b_t = 1                              g_t = (1, ..., 1)
//   2. residual     r_t = v_t - S_{t-1} k'_t             (d)
//   3. write        S_t = diag(g_t) S_{t-1} + b_t r_t k'_t^T
//   4. read         o_t = S_t q'_t
//
// Backward, from the upstream y_t = dL/do_t, t = T .. 1; dS accumulates over tokens (it is the
// gradient of S_t once step 4 has been passed), the rest overwrites:
//   4. dS += y q'^T;  dq' = S_t^T y
//   3. dr = b dS k';  db = r . dS k';  dk' = b dS^T r;  dg_i = sum_j dS_ij (S_{t-1})_ij
//      dS <- diag(g) dS
//   2. dv = dr;  dk' -= S_{t-1}^T dr;  dS -= dr k'^T
//   1. dk' to dk through unit (and silu); dq' to dq; dg, db to daux through sigmoid
//
// The production backward goes against time with dS and once more in time with S: dr needs dS
// alone, after which dk' splits into a part of dS (against time) and a part of S (in time), and dq'
// needs S alone. Only dg (paper) needs both; the states of a tile of tokens are recomputed for it
// from a checkpoint. There is a form without either, from the running sum h_t,i = sum_j (dS_t)_ij
// (S_t)_ij (compare arXiv:2312.06635), but its terms cancel: where a gradient fades to nothing over
// a few gates the rounding noise of h stays, and Adam makes a step of it.
//
// Cost per token and head, multiply-adds: forward 3 d^2; backward 3 d^2 in each of three passes,
// and 2 d^2 for dg. State: d^2 values. Saved: r, d values per token and head; paper also S before
// every tile of tokens.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

/// Production core, float and double; any d.
template <class T>
std::unique_ptr<MixerCore<T>> make_deltanet_core(const MixerConfig& config, Index d_h);

/// Plain loops in double precision.
std::unique_ptr<MixerCore<double>> make_deltanet_reference(const MixerConfig& config, Index d_h);

/// One head, token by token.
template <class T>
std::unique_ptr<HeadMemory<T>> make_deltanet_memory(DeltaNetVariant variant, Index d_h);

}  // namespace vla_bench::mixers
