// The normaliser of linear attention and VLA on a GPU:
//   z_t = z_{t-1} + f_t;  c_t = z_t . q_t;  o_t = n_t / max(c_t, floor)
// Backward, upstream y = dL/do, t = T .. 1:
//   dc_t = -(y_t . o_t) / max(c_t, floor), 0 where c_t < floor
//   df_t = sum_{s >= t} dc_s q_s;  dq_t = dc_t z_t
// 2 d multiply-adds per token and head in each direction; one thread a channel walks through the
// tokens, whose loads do not wait for each other.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/cuda/token_view.h"

namespace vla_bench::mixers::cuda {

struct NormaliserForward {
  HeadDims dims;
  TokenView<const float> f, q;  // (B, T, H, d)
  float floor = 0.0F;
  float* denominator;  // (B, T, H): c before its floor
  float* scale;        // (B, T, H): 1 / max(c, floor)
};
void normaliser_forward(cudaStream_t stream, const NormaliserForward& args);

struct NormaliserBackward {
  HeadDims dims;
  TokenView<const float> f, q;    // (B, T, H, d)
  TokenView<const float> o, d_o;  // (B, T, H, d)
  const float* denominator;       // (B, T, H)
  float floor = 0.0F;
  float* d_denominator;     // (B, T, H), scratch
  TokenView<float> df, dq;  // (B, T, H, d), overwritten: what passes through the normaliser
};
void normaliser_backward(cudaStream_t stream, const NormaliserBackward& args);

/// scale = 1 / max(denominator, floor), elementwise over `count`.
void denominator_scale(cudaStream_t stream, const float* denominator, float floor, float* scale,
                       Index count);

}  // namespace vla_bench::mixers::cuda
