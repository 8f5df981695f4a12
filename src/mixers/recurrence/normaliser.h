// The normaliser of linear attention and VLA on a GPU:
//   z_t = z_{t-1} + f_t;  c_t = z_t . q_t;  o_t = n_t / max(c_t, floor)
// Backward, upstream y = dL/do, t = T .. 1:
//   dc_t = -(y_t . o_t) / c_t, 0 where c_t < floor
//   df_t = sum_{s >= t} dc_s q_s;  dq_t = dc_t z_t
// 2 d multiply-adds per token and head in each direction. A thread a channel walks through the
// tokens; their loads are asked for many tokens at a time. The walks depend on nothing that other
// kernels of a pass compute, and run as further blocks of their launches.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/token_view.h"

namespace vla_bench::mixers::cuda {

struct NormaliserForward {
  HeadDims dims;
  TokenView<const float> f, q;  // (B, T, H, d)
  float floor = 0.0F;
  float* denominator = nullptr;  // (B, T, H): c before its floor
  float* scale = nullptr;        // (B, T, H): 1 / max(c, floor)
};
/// On its own, for VLA without a penalty; vla_penalty_cuda.h runs it beside the penalty path, and
/// recurrence_cuda.h does linear attention's, whose f is what it writes along, with the state's
/// rows.
void normaliser_forward(cudaStream_t stream, const NormaliserForward& args);

/// What the backward's kernels start from.
struct NormaliserTerms {
  HeadDims dims;
  TokenView<const float> o, d_o;       // (B, T, H, d)
  const float* denominator = nullptr;  // (B, T, H)
  float floor = 0.0F;
  float* scale = nullptr;          // (B, T, H)
  float* d_denominator = nullptr;  // (B, T, H): dc
};
void normaliser_terms(cudaStream_t stream, const NormaliserTerms& args);

/// The backward's walks; recurrence_cuda.h runs them beside its own.
struct NormaliserWalks {
  TokenView<const float> f, q;           // (B, T, H, d)
  const float* d_denominator = nullptr;  // (B, T, H)
  TokenView<float> df, dq;               // (B, T, H, d): what passes through the normaliser
};

}  // namespace vla_bench::mixers::cuda
