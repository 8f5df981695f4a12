// The recurrence of recurrence.h in chunks of C tokens: products of matrices instead of one token
// after the other. Exact: the results are those of the recurrence up to rounding.
//
// One lane. The tokens of a chunk are columns: r, a, q, f and v, e, n, o are (d, C). S (d, d),
// value rows and key columns, and z (d) are those before the chunk. alpha_t is the decay of token
// t, 1 without a decay; r is 0 without a residual. Juxtaposition is the product of matrices, * goes
// element by element.
//
// Unrolled from the chunk's entry, the recurrence is
//   S_t = Gamma(0, t) S + sum over s <= t of Gamma(s, t) e_s a_s^T,
// where Gamma(s, t) is what token t leaves of what stood there after token s (0: at entry). Step 3
// is e_t = v_t - S_{t-1} r_t with this S_{t-1}, steps 4 and 5 are S_t q_t and S_C. Without a decay
// and for r = k, a = beta k it is the WY form of arXiv:2406.06484; arXiv:2412.06464 has the decay,
// which there acts before the residual reads S (here r then carries it).
//
// Forward:
//   1. Gamma(s, t) = alpha_{s+1} ... alpha_t for s <= t, 0 for s > t;  s, t = 0 .. C
//   2. X = I + (a^T r) * Gamma(s, t - 1);  P = (a^T q) * Gamma(s, t);  s, t = 1 .. C   (C, C)
//      both upper triangular, the diagonal of X is 1
//   3. e X = v - S r diag(Gamma(0, t - 1))
//   4. n = S q diag(Gamma(0, t)) + e P;  o = n diag(c)
//   5. S <- Gamma(0, C) S + e diag(Gamma(s, C)) a^T
//   6. z_t = z + f_1 + ... + f_t;  c_t = 1 / max(z_t . q_t, floor), or 1;  z <- z_C
//
// Backward, from the upstream g; D = dS and dz come from the chunk behind this one:
//   7. dn = g diag(c)
//   8. de X^T = D a diag(Gamma(s, C)) + dn P^T;  dv = de
//   9. dP = (e^T dn) * Gamma(s, t);  dX = -(e^T de) * Gamma(s, t - 1)                   (C, C)
//  10. dq = S^T dn diag(Gamma(0, t)) + a dP
//      dr = -S^T de diag(Gamma(0, t - 1)) + a dX
//      da = D^T e diag(Gamma(s, C)) + q dP^T + r dX^T
//  11. D <- Gamma(0, C) D + dn diag(Gamma(0, t)) q^T - de diag(Gamma(0, t - 1)) r^T
//  12. dc_t = -(g_t . o_t) c_t, 0 where z_t . q_t < floor;  dz_t = dz + sum over s >= t of dc_s q_s
//      dq_t += dc_t z_t;  df = dz_t;  dz <- dz_1
//  13. dalpha_t = sum over s < t <= u of Gamma(s, t - 1) M(s, u) Gamma(t, u), where
//      M(s, u) = (e_s . dn_u) (a_s . q_u) - (e_s . de_{u+1}) (a_s . r_{u+1}), with e_s . D a_s added
//      at u = C; for s = 0, x^T S y stands for (e_s . x) (a_s . y)                       (C + 1, C + 1)
// Step 13 follows from M = dL/dGamma and Gamma(s, u) = Gamma(s, t - 1) alpha_t Gamma(t, u): it
// subtracts no running sums (compare recurrence.h on dD) and does not divide by alpha, which may
// be 0.
//
// With a decay per key channel each Gamma is a number per channel j, again a product of decays and
// never a quotient of two, so that channels may fade at once. The steps differ where tokens meet
// (a_j, r_j, q_j: rows j of a, r, q; S_j: column j of S):
//   2. X = I + sum over j of (a_j^T r_j) * Gamma_j(s, t - 1), P likewise
//   3 to 5, 8, 11. r diag(Gamma(0, t - 1)) becomes the elementwise r * Gamma(0, t - 1), q and a
//      likewise; column j of S and D fades by Gamma_j(0, C)
//   9, 10. row j of dq, dr and da has the dP and dX of Gamma_j
//  13. a sum for each channel, a_js q_ju in place of a_s . q_u, (x^T S_j) y_j in place of x^T S y
// What two tokens of a chunk have with each other then is no product of matrices: chunks are short.
//
// Segments of the sequence, several chunks each, can run side by side, since 3 to 5 are linear in
// the S that enters a segment. Its e, n and S are sums of two runs: one from S = 0, one without
// values from S = I. The second makes e, n and S into the maps of S_in; its n are the effective
// queries, its last S is Phi, the product of the segment's alpha_t I - r_t a_t^T.
//  14. S_out = S_in Phi + S_local;  n = n_local + S_in n_map;  e and S of a chunk likewise
//  15. D_in = D_out Phi^T + D_local, D_local by 8 and 11 with D = 0 behind the segment; then every
//      segment runs 8 to 11 with its own D_out
// z and dz are sums from the left and from the right; sums of segments join by addition.
//
// Cost per token and head, multiply-adds, triangles counted as halves: forward 3 d^2 + 2 d C, with
// segments 7 d^2 + 3 d C and d^3 a segment; after it the backward 6 d^2 + 4 d C, with segments
// 9 d^2 + 5 d C and d^3 a segment, and C^2 / 6 for 13, whose products other steps have too. Without
// a residual: forward 2 d^2 + d C, backward 4 d^2 + 2 d C.
#pragma once

#include <memory>
#include <vector>

#include "mixers/mixer.h"
#include "mixers/recurrence/recurrence.h"

namespace vla_bench::mixers {

/// How a lane is cut. The last chunk and the last segment may be shorter.
struct ChunkPlan {
  Index chunk = 64;              // C, tokens
  Index chunks_per_segment = 0;  // 0: the whole lane is one segment
};

struct TokenRange {
  Index first, count;
};
/// The chunks of every segment of a lane.
std::vector<std::vector<TokenRange>> cut(Index tokens, const ChunkPlan& plan);
/// Throws BadInput unless a chunk has tokens.
void check_plan(const ChunkPlan& plan);

/// The form exists for no decay, one per head and one per key channel and token, with any residual
/// and normaliser; not for one per value channel, which would take an X of each.
Support supports_chunks(const RecurrenceForm& form);

/// Steps 1 to 15 in double precision, everything computed again in the backward; a part of the
/// tests. Throws BadInput for a form or plan that cannot be.
std::unique_ptr<MixerCore<double>> make_chunked_reference(
    std::unique_ptr<RecurrentRule<double>> rule, const ChunkPlan& plan);

}  // namespace vla_bench::mixers
