// Launches of softmax attention's kernels, called by softmax_cuda.cpp and softmax_unfused_cuda.cpp;
// softmax_cuda.h describes the kernels.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/mixer.h"
#include "mixers/softmax/softmax_cuda.h"

namespace vla_bench::mixers::softmax::cuda {

/// Head sizes of the compiled kernels; tensor cores need at least 16.
inline constexpr Index kHeadSizes[] = {8, 16, 32, 64, 128};
inline constexpr Index kLeastOnTensorCores = 16;

struct Forward {
  HeadDims dims;
  SoftmaxTiling tiling = SoftmaxTiling::by_shape;
  HeadView<const float> q, k, v;  // (B, T, H, d)
  HeadView<float> o;              // (B, T, H, d), overwritten
  /// (shift, scale) per query, overwritten; null at inference. The weights are
  /// p_ij = 2^(x_ij log2(e) - shift_i) scale_i.
  float2* normalisation = nullptr;  // (B, T, H)
};

struct Backward {
  HeadDims dims;
  SoftmaxTiling tiling = SoftmaxTiling::by_shape;
  HeadView<const float> q, k, v, o, d_o;  // (B, T, H, d)
  HeadView<float> dq, dk, dv;             // (B, T, H, d), overwritten
  const float2* normalisation = nullptr;  // (B, T, H), what forward left
  /// Per query D_i and the rounding error of the sum of row i of dx; passed from the queries'
  /// kernel to the keys' where there are two.
  float2* row_terms = nullptr;  // (B, T, H), overwritten
};

/// Plain float32 arithmetic.
void forward_float32(cudaStream_t stream, const Forward& args);
void backward_float32(cudaStream_t stream, const Backward& args);

/// backward_float32 of the sequences that takes_whole_lane (softmax_tiles.h) names, in one kernel.
void backward_whole_lane(cudaStream_t stream, const Backward& args);

/// Tensor cores; `precision` is tf32 or bf16.
void forward_tensor_cores(cudaStream_t stream, Precision precision, const Forward& args);
void backward_tensor_cores(cudaStream_t stream, Precision precision, const Backward& args);

/// In place: row i of every (T, T) matrix becomes the softmax of its first i + 1 elements, and zero
/// elsewhere.
void softmax_rows(cudaStream_t stream, float* scores, Index lanes, Index tokens);  // (B * H, T, T)

}  // namespace vla_bench::mixers::softmax::cuda
