// The penalty matrix A of vla.h in chunks of C tokens, with nudges anywhere in them, and in
// segments of the sequence side by side. Exact: the results are those of vla.h up to rounding.
//
// One lane. The tokens of a chunk are columns: u, k, b, a are (d, C). A (d, d) is that at the
// chunk's entry. before_t and after_t (t = 1 .. C) count the chunk's nudges before token t and up
// to the one that follows it; any number of them, at any tokens. tril and triu are triangles with
// the diagonal, sym(M) = (M + M^T) / 2, half(M) = tril(M) with half its diagonal.
//
// With z_s = w_s / sqrt(delta_s), step (2) of vla.h gives A_{t-1} = A + per_eps before_t I - sum
// over s < t of z_s z_s^T. So delta_t = 1 + u_t . A_{t-1} u_t is what the Cholesky factorisation of
// I + u^T (A u + per_eps u diag(before)) leaves at its pivot t, if it takes this matrix's lower
// triangle for a symmetric one; its factor has L_ts = z_s . u_t below the diagonal and
// L_tt = sqrt(delta_t), and L Z^T = W^T gives every z at once. Nudges only scale columns.
//
// Forward:
//   1. W = A u + per_eps u diag(before)                                                (d, C)
//   2. L L^T = I + tril(u^T W), read as symmetric; pivot_t = max(delta_t, stab_eps)    (C, C)
//   3. Z = W L^-T                                                                      (d, C)
//   4. b = A k + per_eps k diag(after) - Z triu(Z^T k);  a = unit(b) (write unit), b (write raw)
//      for a chunk with u = s k, s > 0 (penalty key) and every delta above its floor, by
//      A_t k_t = w_t / (s delta_t) before the nudge:
//      b = Z diag(1 / (s L_tt)) + per_eps k diag(after - before)
//   5. A <- sym(A - Z Z^T) + per_eps after_C I
//
// Backward, from da and from what dk has of the recurrence; G = dA (symmetric) comes from the chunk
// behind this one:
//   6. db: step (4) of vla.h
//   7. dk += A db + per_eps db diag(after) - Z triu(Z^T db)
//   8. dZ = -2 G Z - db tril(k^T Z) - k tril(db^T Z);  Y = dZ L^-1                     (d, C)
//   9. dM = -half(L^-T R L^-1), R symmetric with the lower triangle of dZ^T Z          (C, C)
//      where a pivot is at its floor: dM pivot by pivot from dL = -tril(Y^T Z), without a gradient
//      through that pivot
//  10. dW = Y + u dM;  du = A dW + per_eps dW diag(before) + W dM^T
//  11. G <- G + sym(db k^T + dW u^T)
// Step 9 is the gradient of a Cholesky factorisation (arXiv:1602.07527); tril(L^T dL), which it
// starts from, is -tril(dZ^T Z), so that no dL is formed.
//
// Segments. What a segment makes of the A that enters it is the covariance step of a Kalman filter,
// A_out = C + E (A_in^-1 + J)^-1 E^T, with E, C, J (d, d) that do not depend on A_in; such elements
// compose (arXiv:1905.13002):
//  12. E = I, C = 0, J = 0 at the segment's start; a chunk takes 1, 2, 3 and 5 with C in place of A,
//      and with its Z, L:  Y = E^T u L^-T;  E <- E - Z Y^T;  J <- J + Y Y^T
//  13. J = R R^T;  W = A_in R;  L L^T = I + R^T W;  Z = W L^-T;  F = E (I - Z L^-1 R^T);
//      A_out = sym(C + E sym(A_in - Z Z^T) E^T);  dA_out = F dA_in F^T
//  14. (E1, C1, J1), then (E2, C2, J2):  C1 = R R^T;  L L^T = I + R^T J2 R;  H = R L^-T;
//      V = J2 E1;  M = H^T V;  E = E2 (E1 - H M);  C = C2 + E2 H (E2 H)^T;  J = J1 + E1^T V - M^T M
//  15. G_in = F^T G_out F + G_local, G_local by 8 to 11 with G = 0 behind the segment; then every
//      segment runs 8 to 11 with its own G_out
// 13 is the matrix inversion lemma for (A_in^-1 + J)^-1 = A_in - A_in R (I + R^T A_in R)^-1 R^T
// A_in, 14 that for (I + C1 J2)^-1. J is singular where a segment has fewer directions than A has
// rows. Solving with I + A_in J instead, which is not symmetric, costs three digits of b where
// directions are alike and lambda_0 is 1e-3.
//
// Floors. A is positive definite, so in exact arithmetic delta >= 1 and a floor of at most 1 is
// never met. A higher one is exact in chunks, since later pivots follow from a floored one, but not
// in elements: A_in decides which pivots it meets. A delta below kLeastPivot says that rounding has
// made A indefinite; such pivots are counted. Tokens that eval.hold_penalty_after holds have u = 0
// and no nudges.
//
// Cost per token and head, multiply-adds, triangles counted as halves: forward 2.5 d^2 + 2 d C +
// C^2 / 6, by the second form of 4 1.5 d^2 + d C + C^2 / 6; with segments 4 d^2 + 1.5 d C + C^2 / 6
// more, and 7 d^3 a segment. After it the backward: 4 d^2 + 4 d C + C^2; with segments the chain of
// G, 2 d^2 + 3 d C + C^2, twice, and 1.5 d^3 a segment.
#pragma once

#include <Eigen/Core>
#include <memory>

#include "mixers/recurrence/chunked.h"
#include "mixers/vla/options.h"
#include "mixers/vla/vla_rule.h"

namespace vla_bench {

/// Steps 1 to 15 as a rule for make_chunked_reference or make_recurrent_reference, which give it a
/// lane as one tile. A frozen penalty has no chain: its rule is the reference's. `low_pivots`, if
/// not null, outlives the rule and gains the number of low pivots of every forward, the one that a
/// backward repeats too. Throws BadInput for segments with stab_eps above 1 (Floors) and for a plan
/// that cannot be.
std::unique_ptr<mixers::RecurrentRule<double>> make_chunked_reference_rule(
    const VlaOptions& options, Index d_h, const mixers::ChunkPlan& plan,
    Index* low_pivots = nullptr);

namespace mixers::vla {

/// What a segment makes of A (12).
struct PenaltyElement {
  Eigen::MatrixXd E, C, J;  // (d, d)
};

/// Of the tokens first .. first + T - 1 of a lane, from their directions u (d, T).
PenaltyElement penalty_element(const VlaOptions& options, Index first, const Eigen::MatrixXd& u,
                               Index chunk);
/// 13: A_out and F.
struct AfterElement {
  Eigen::MatrixXd A, F;  // (d, d)
};
AfterElement apply(const PenaltyElement& element, const Eigen::MatrixXd& A_in);
/// 14
PenaltyElement compose(const PenaltyElement& one, const PenaltyElement& two);

}  // namespace mixers::vla
}  // namespace vla_bench
