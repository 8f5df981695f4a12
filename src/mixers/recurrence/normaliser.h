// The normaliser of linear attention and VLA on a GPU:
//   z_t = z_{t-1} + f_t;  c_t = z_t . q_t;  o_t = n_t / max(c_t, floor)
// Backward, upstream y = dL/do, t = T .. 1:
//   dc_t = -(y_t . o_t) / c_t, 0 where c_t < floor
//   df_t = sum_{s >= t} dc_s q_s;  dq_t = dc_t z_t
// 2 d multiply-adds per token and head in each direction. Each channel has a thread, which runs
// through the tokens and issues the loads of many tokens at once. These scans do not depend on what
// the other kernels of a pass compute, so they run as further blocks of their launches.
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
  // normaliser_scratch_size numbers: segments of tokens run side by side. Null: one after the
  // other.
  float* sums = nullptr;
};
/// A launch of its own, for VLA with a frozen penalty. vla_penalty_cuda.h runs it beside the
/// penalty path; recurrence_cuda.h computes linear attention's, whose f is a, with the rows of S.
/// In segments three launches: sums of f over each, z before each, every segment from its z. f is
/// read twice then: 12 d bytes a token, .09 ms at 524,288 tokens of d = 64 and 4.4 TB/s.
void normaliser_forward(cudaStream_t stream, const NormaliserForward& args);

/// Tokens of a segment. A walk takes a microsecond in 16 tokens, so short lanes take short ones.
constexpr Index normaliser_segment(Index tokens) { return tokens <= 4096 ? 32 : 128; }
constexpr Index normaliser_segments(Index tokens) {
  return (tokens + normaliser_segment(tokens) - 1) / normaliser_segment(tokens);
}
/// From this length on segments are the faster way.
inline constexpr Index kLeastNormaliserTokens = 512;
inline Index normaliser_scratch_size(const HeadDims& dims) {
  return dims.lanes() * normaliser_segments(dims.tokens) * kernel_head_size(dims.d_h);
}

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
/// The same in segments, by launches of its own: sums of f and of dc q over each, z and dz before
/// each, every segment from there. `sums` has normaliser_backward_scratch_size numbers. f and q are
/// read twice: 24 d bytes a token.
void normaliser_backward(cudaStream_t stream, const HeadDims& dims, const NormaliserWalks& args,
                         float* sums);
inline Index normaliser_backward_scratch_size(const HeadDims& dims) {
  return 2 * normaliser_scratch_size(dims);
}

}  // namespace vla_bench::mixers::cuda
