// Variational Linear Attention (arXiv:2605.11196), its variants and its backward.
//
// Shapes of one lane (batch element and head): kappa, q, v, aux, u, f, k, w, b, a, e, o are (d);
// A is (d, d) symmetric; S is (d, d), value rows, key columns; z is (d). unit(x) = x / max(|x|,
// 1e-12). phi is the feature map (elu1: x + 1 for x > 0, else exp x). A_0 = I / lambda_0, S_0 = 0,
// z_0 = 0. Per token t = 1, 2, ...:
//
//   (1) features     f = phi(kappa), k = unit(f), q' = phi(q)
//       penalty      u = u_scale unit(aux) (learned: aux = W_u kappa), or u_scale k (key);
//                    u_scale defaults to 1 / sqrt(d)
//   (2) inverse      w = A u;  delta = max(1 + u.w, stab_eps);  A <- A - w w^T / delta
//   (3) nudge        every `period` tokens: A <- A + per_eps I
//                    (penalty frozen: (2) and (3) are left out, A stays I / lambda_0)
//   (4) direction    b = A k;  a = unit(b) (write unit), or b (write raw)
//   (5) residual     e = v - S r, r = k (residual key) or a (residual write)
//   (6) write        S <- S + e a^T
//   (7) normaliser   z <- z + f;  c = max(z.q', stab_eps), or 1 (normaliser none)
//   (8) read         o = S q' / c
//
// Backward, upstream g = dL/do; dS, G = dA (kept symmetric) and dz carry over from token t + 1 and
// accumulate; everything else is a token's own and overwrites:
//
//   (8) dn = g / c;  dS += dn q'^T;  dq' = S_t^T dn
//   (7) dc = -(g.o) / c, where not clamped: dz += dc q', dq' += dc z_t;  df = dz
//   (6) de = dS a;  da = dS^T e
//   (5) dv = de;  dS -= de r^T;  dr = -S_{t-1}^T de, added to dk (key) or da (write)
//   (4) db = (da - a (a.da)) / |b| (unit), da (raw);  G += sym(db k^T);  dk += A_t db
//   (2) dw = -2 G w / delta;  ddelta = w^T G w / delta^2 = -(w.dw) / (2 delta);
//       where not clamped dw += ddelta u, du = ddelta w;  G += sym(dw u^T);  du += A_{t-1} dw
//   (1) du through unit() to daux, or u_scale du added to dk;  df += (dk - k (k.dk)) / |f|;
//       dkappa = df phi'(kappa), dq = dq' phi'(q)
// max(x, c) passes no gradient when c is strictly larger. sym(M) = (M + M^T) / 2: A is symmetric,
// so the symmetric part of its gradient is all that reaches u and k.
//
// Cost per token and head, multiply-adds: forward 6 d^2 (A u, w w^T, A k, S k, e a^T, S q), state
// 2 d^2 + d; backward 2 d^2 of recomputed history and 14 d^2. The production core keeps for the
// backward e, a, w (3 d) a token and A, S, z every kSegment tokens.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

/// Production core, float and double; any d.
template <class T>
std::unique_ptr<MixerCore<T>> make_vla_core(const MixerConfig& config, Index d_h);

/// Plain loops in double precision.
std::unique_ptr<MixerCore<double>> make_vla_reference(const MixerConfig& config, Index d_h);

}  // namespace vla_bench::mixers
