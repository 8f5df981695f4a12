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
// Cost per token and head, multiply-adds: forward 3 d^2 (A u, w w^T, A k) and 3 d d_v (S k, e a^T,
// S q), state d^2 + d d_v + d; backward 9 d^2, of which 2 d^2 are recomputed history, and 7 d d_v.
// Steps (5) to (8) are recurrence.h's; for (2) to (4) the production core keeps a, w (2 d) a token
// and A before every tile of tokens.
#pragma once

#include <memory>

#include "mixers/layout.h"
#include "mixers/vla/options.h"
#include "mixers/vla/vla_rule.h"

namespace vla_bench {
template <class T>
class MixerCore;
namespace mixers {
template <class T>
class RecurrentRule;
namespace cuda {
class CudaRule;
}
}  // namespace mixers

/// The penalty direction of a learned penalty reads the keys of all heads.
inline MixerLayout layout(const VlaOptions& options, Index d_h) {
  MixerLayout layout{.output_norm = true};
  if (options.penalty == Penalty::learned) {
    layout.more = {{.name = "Wu", .width = d_h, .source = Projection::Source::key, .bias = false}};
  }
  return layout;
}
/// Step (1), and all of a frozen penalty.
template <class Body>
void with_rule(const VlaOptions& options, Index d_h, const Body& body) {
  body(mixers::vla::VlaRule(options, d_h));
}

/// Multiply-adds of a token and head: of the path of S, and of A's, which a frozen penalty lacks.
inline TokenCost token_cost(const VlaOptions& /*options*/) { return {3, 7}; }
inline Index chain_multiply_adds(const VlaOptions& options, LatencyPass pass, Index d) {
  if (options.penalty == Penalty::frozen) return 0;
  return (pass == LatencyPass::forward ? 3 : 9) * d * d;
}

/// The rule with its chain of A: production (float, double), reference, and on a GPU.
template <class T>
std::unique_ptr<mixers::RecurrentRule<T>> make_chain_rule(const VlaOptions& options, Index d_h);
std::unique_ptr<mixers::RecurrentRule<double>> make_reference_rule(const VlaOptions& options,
                                                                   Index d_h);
std::unique_ptr<mixers::cuda::CudaRule> make_cuda_chain_rule(const VlaOptions& options, Index d_h,
                                                             mixers::Chunks chunks);

/// One token after the other, as a loop over tokens in Python runs it: what the fused scan is
/// compared with. Every token's step is a call of its own and finds A, S and z in memory; the scan
/// keeps them in registers or caches. Only a forward. On a GPU a launch a token, all lanes in it;
/// the launches of a forward wait in the stream's queue behind one another, so the host is not part
/// of what a timer sees.
template <class T>
std::unique_ptr<MixerCore<T>> make_sequential_core(const VlaOptions& options, Index d_h);
std::unique_ptr<MixerCore<float>> make_sequential_cuda_core(const VlaOptions& options, Index d_h);

}  // namespace vla_bench
