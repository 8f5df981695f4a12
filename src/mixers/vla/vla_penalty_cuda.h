// The penalty path of VLA on a GPU: A from u and k to the write direction a, and back. Numbers are
// the steps of vla.h.
//
// With w^ = w / sqrt(delta), A_t = A_{t-1} - w^ w^^T stays symmetric to the last bit, and
//   A_t k = A_{t-1} k - w^ (w^ . k) [+ per_eps k at a nudge]
// so both products of a token (with u and with k) are taken of A_{t-1} at once: one exchange of w
// between the threads of a lane per token, and the length of b is divided out for a whole tile, off
// the chain. The backward carries G = dA against time with one exchange of G w^ per token; what it
// needs of A itself (A_t db, A_{t-1} dw) is computed once every db and dw is known, by one more
// pass over A in time whose columns are independent.
//
// Multiply-adds per token and head: forward 4 d^2 (with A u, w w^T, A k: 3 d^2 of vla.h, and the
// dot products), backward 6 d^2 (two symmetric updates, G w^) and 3 d^2.
//
// Floor: the chain of one token, about 300 cycles (a product of d / 4 channels, two shuffles, an
// exchange through shared memory with a barrier, two dot products of d, a square root): 73 tokens
// take 12 us, 4,096 tokens 0.7 ms, whatever the arithmetic.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "mixers/recurrence/normaliser.h"
#include "mixers/recurrence/token_view.h"

namespace vla_bench::mixers::cuda {

struct PenaltySettings {
  float inverse_lambda = 0.0F;
  float stab_eps = 0.0F;
  float per_eps = 0.0F;
  int period = 0;
  int nudged_tokens = INT32_MAX;  // only the first may be nudged
  bool unit_write = true;
};

/// Tokens from `hold_after` on (0: none) leave A as it is: sets their u, dense (B, T, H, d), to 0.
void hold_directions(cudaStream_t stream, const HeadDims& dims, Index hold_after, float* u);

/// The filter's gain of kalman.h in the place of (4): a = w^ / sqrt(delta), views (B, T, H, d),
/// delta (B, T, H).
void write_gains(cudaStream_t stream, const HeadDims& dims, const TokenView<const float>& w,
                 const float* delta, const TokenView<float>& a);
/// y += factor x, views (B, T, H, d): takes a nudge that comes after (4) off what the backward
/// below adds of it, off dk with x = da.
void add_multiple(cudaStream_t stream, const HeadDims& dims, float factor,
                  const TokenView<const float>& x, const TokenView<float>& y);

/// (2) to (4). Views (B, T, H, d); scalars (B, T, H).
struct PenaltyForward {
  HeadDims dims;
  PenaltySettings settings;
  TokenView<const float> u, k;
  TokenView<float> a;
  // For the backward; w empty and the others null: not wanted.
  TokenView<float> w;              // w^
  float* b_norm = nullptr;         // |b|
  float* delta = nullptr;          // 1 + u . w before its floor
  NormaliserForward normaliser{};  // (7), beside it; left out when its denominator is null
};
void penalty_forward(cudaStream_t stream, const PenaltyForward& args);

/// (4) and (2) against time.
struct PenaltyBackward {
  HeadDims dims;
  PenaltySettings settings;
  TokenView<const float> u, k, a, w;
  const float* b_norm;
  const float* delta;
  TokenView<const float> da;
  TokenView<const float> da_more;  // added to da (residual write: dr), or empty
  TokenView<float> db, dw;
  float*
      w_share;  // (B, T, H): ddelta sqrt(delta), what du has of w^; 0 where delta is at its floor
};
void penalty_backward(cudaStream_t stream, const PenaltyBackward& args);
/// Only (4): db from da, a and b_norm.
void direction_gradients(cudaStream_t stream, const PenaltyBackward& args);

/// The pass over A in time: du = A_{t-1} dw + w_share w^, dk = A_t db.
struct PenaltyReads {
  HeadDims dims;
  PenaltySettings settings;
  TokenView<const float> w, dw, db;
  const float* w_share;
  TokenView<float> du, dk;
};
void penalty_reads(cudaStream_t stream, const PenaltyReads& args);

}  // namespace vla_bench::mixers::cuda
