// Linear attention (Katharopoulos et al. 2020, arXiv:2006.16236), the paper's baseline.
//
// One lane (batch element and head), from S_0 = 0 (d, d) and z_0 = 0 (d); phi(x) = ELU(x) + 1:
//   1. f_t = phi(k_t), p_t = phi(q_t)          (d)
//   2. S_t = S_{t-1} + v_t f_t^T               (d, d)
//   3. z_t = z_{t-1} + f_t                     (d)
//   4. n_t = S_t p_t                           (d)
//   5. c_t = z_t . p_t;  o_t = n_t / max(c_t, 1e-6)
//
// Backward, from the upstream g_t = dL/do_t, t = T .. 1; dS and dz accumulate over tokens, the rest
// overwrites:
//   5. dn = g / max(c, 1e-6);  dc = -(g . o) / c, 0 where c < 1e-6
//   4. dS += dn p^T;  dp = S_t^T dn
//   5. dz += dc p;    dp += dc z_t
//   3. df = dz
//   2. dv = dS f;     df += dS^T v
//   1. dk = df phi'(k);  dq = dp phi'(q)
// Written out, steps 4 and 2 are sums over earlier or later tokens,
//   n_t  = sum_{s<=t} v_s  (f_s . p_t)        dp_t = sum_{s<=t} f_s (v_s . dn_t)
//   dv_t = sum_{s>=t} dn_s (p_s . f_t)        df_t = sum_{s>=t} p_s (dn_s . v_t)
// that is: the forward recurrence with exchanged roles, twice against time. So the production
// backward is three more scans and keeps no state; `saved` holds c alone.
//
// Cost per token and head, multiply-adds: forward 2 d^2, backward 6 d^2. State: d^2 + d values.
// Saved: 1 value per token and head.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

inline constexpr double kLinearEpsilon = 1e-6;  // floor of step 5's denominator

/// Production core, float and double; any d.
template <class T>
std::unique_ptr<MixerCore<T>> make_linear_core(const MixerConfig& config, Index d_h);

/// Plain loops in double precision.
std::unique_ptr<MixerCore<double>> make_linear_reference(const MixerConfig& config, Index d_h);

/// One head, token by token.
template <class T>
std::unique_ptr<HeadMemory<T>> make_linear_memory(Index d_h);

}  // namespace vla_bench::mixers
