// One token of VLA on a GPU, all lanes in one launch, the state in memory between tokens. Numbers
// are the steps of vla.h.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/token_view.h"

namespace vla_bench::mixers::cuda {

struct VlaTokens {
  HeadDims dims;
  TokenView<const float> query, f, k, u, v;  // (B, T, H, d); u is empty where A is frozen
  TokenView<float> o;                        // (B, T, H, d)
  float* state = nullptr;                    // (lanes, token_state_size)
  float inverse_lambda = 0.0F, stab_eps = 0.0F, per_eps = 0.0F;
  Index period = 0;
  bool unit_write = true, tied = false, normalises = true;
};

/// Elements of a lane's state: A (d, d), the transpose of S (d, d), z (d).
inline Index token_state_size(Index d) { return 2 * d * d + d; }

/// A = I / lambda_0, S = 0, z = 0.
void start_tokens(cudaStream_t stream, const VlaTokens& args);
/// (2) to (8) of token t, from 0.
void step_token(cudaStream_t stream, const VlaTokens& args, Index t);

}  // namespace vla_bench::mixers::cuda
