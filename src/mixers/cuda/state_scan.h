// The recurrence that linear attention, DeltaNet and VLA share, and its backward, on a GPU. Mixers
// differ in what they pass for r, a, q and the gate.
//
// One lane (batch element and head), S (d, d) with value rows i and key columns j, S_0 = 0:
//   1. e_t = v_t - S_{t-1} r_t          residual (e_t = v_t without r)
//   2. S_t = diag(g_t) S_{t-1} + e_t a_t^T   write (g = 1 without a gate)
//   3. n_t = S_t q_t;  o_t = c_t n_t    read (c = 1 without a scale)
// Backward, upstream y = dL/do, dn = c y, t = T .. 1, dS carried against time:
//   3. dS += dn q^T;            dq = S_t^T dn
//   2. de = dS a;               da = dS^T e;    dg_i = sum_j dS_ij (S_{t-1})_ij;  dS <- diag(g) dS
//   1. dv = de;  dS -= de r^T;  dr = -S_{t-1}^T de
//
// Rows of S do not meet in 1 and 2, nor rows of dS in the chain of de: both run with a row on a few
// threads, no barrier between tokens. Once every de is known, columns do not meet either:
// S is run through once more for dq and dr, in time, and dS for da, against time, with a column on
// a few threads. So no state is kept between forward and backward, only e (T, d), whatever T is;
// the gate alone needs S and dS of the same token and takes S from checkpoints every kGateSegment
// tokens.
//
// Multiply-adds per token and head: forward 3 d^2; backward 9 d^2 (gate: 2 d^2 more).
//
// Floor on a GPU. A lane's tokens follow each other: the chain of one token is a dot product of d /
// 4 channels, two shuffles and an update, about 80 cycles. At the published size (T = 73, 256 lanes
// on 132 multiprocessors) that is 73 x 80 cycles = 3 us a pass whatever the arithmetic (57 million
// multiply-adds: 2 us) and the bytes (256 lanes x 73 x 5 vectors of 32 floats: 12 MB, in L2).
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/cuda/head_size.h"
#include "mixers/cuda/normaliser.h"
#include "mixers/cuda/token_view.h"

namespace vla_bench::mixers::cuda {

/// Tokens between two checkpoints of S for the gate's gradient.
inline constexpr Index kGateSegment = 8;

/// Elements of the checkpoints of all lanes.
inline Index checkpoint_size(const HeadDims& dims) {
  const Index d = kernel_head_size(dims.d_h);
  return dims.lanes() * ((dims.tokens + kGateSegment - 1) / kGateSegment) * d * d;
}

/// What recurs. Every view (B, T, H, d); d is one of kHeadSizes.
struct StateScan {
  HeadDims dims;
  TokenView<const float> r;  // empty: no residual
  TokenView<const float> a;
  TokenView<const float> q;
  TokenView<const float> gate;   // empty: none
  const float* scale = nullptr;  // (B, T, H): c, or null
};

struct StateForward {
  TokenView<const float> v;
  TokenView<float> o;
  TokenView<float> e;            // empty: not wanted
  float* checkpoints = nullptr;  // (lanes, segments, d, d): S before each segment; null: not wanted
  // Without r (linear attention) the pass is its normaliser's as well, in place of scan.scale: z_t
  // = z_{t-1} + a_t, c_t = z_t . q_t, o_t = n_t / max(c_t, floor).
  float* denominator = nullptr;  // (B, T, H): c before its floor; null iff there is r
  float floor = 0.0F;
};
void state_forward(cudaStream_t stream, const StateScan& scan, const StateForward& args);

/// The chain of de.
struct StateResiduals {
  TokenView<const float> d_o;
  TokenView<float> de;
  // With a gate:
  TokenView<const float> e;
  const float* checkpoints = nullptr;
  TokenView<float> dgate;
};
void state_residuals(cudaStream_t stream, const StateScan& scan, const StateResiduals& args);

/// dq, dr and da, once de is known.
struct StateGradients {
  TokenView<const float> e, de, d_o;
  TokenView<float> dq, da;
  TokenView<float> dr;           // empty iff r is
  NormaliserWalks normaliser{};  // left out when its d_denominator is null
};
void state_gradients(cudaStream_t stream, const StateScan& scan, const StateGradients& args);

}  // namespace vla_bench::mixers::cuda
