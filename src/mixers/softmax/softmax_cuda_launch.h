// Launches of softmax attention's kernels, called by softmax_cuda.cpp and softmax_unfused_cuda.cpp;
// softmax_cuda.h describes the kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>

#include "core/device_kinds.h"
#include "mixers/heads.h"
#include "mixers/softmax/softmax_tiling.h"

namespace vla_bench::mixers::softmax::cuda {

/// The channels of the largest heads.
inline constexpr Index kMostChannels = 256;
/// Those on tensor cores: a bfloat16 product contracts 16 channels, and a warp's 16 rows of more
/// than 128 overflow its registers.
inline constexpr Index kLeastOnTensorCores = 16, kMostOnTensorCores = 128;

/// A HeadView and whether its layout allows loads of four channels.
template <class T>
struct Rows {
  HeadView<T> view;
  bool vectors;

  Rows(const HeadView<T>& view_)
      : view(view_),
        vectors(reinterpret_cast<std::uintptr_t>(view_.data) % sizeof(float4) == 0 &&
                view_.row_stride % 4 == 0 && view_.head_stride % 4 == 0) {}
};

/// 1 / sqrt(d).
inline float score_scale(Index d_h) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(d_h)));
}
/// From q . k to the exponent of 2: log2(e) / sqrt(d).
inline float exponent_scale(Index d_h) {
  constexpr double kLog2E = 1.4426950408889634;
  return static_cast<float>(kLog2E / std::sqrt(static_cast<double>(d_h)));
}

/// Arguments of a forward, of its launch and of its kernels.
struct Forward {
  HeadDims dims;
  SoftmaxTiling tiling = SoftmaxTiling::by_shape;
  float exponent_scale = cuda::exponent_scale(dims.d_h);
  Rows<const float> q, k, v;  // (B, T, H, d)
  Rows<float> o;              // (B, T, H, d), overwritten
  /// (shift, scale) per query, overwritten; null at inference. The weights are
  /// p_ij = 2^(x_ij log2(e) - shift_i) scale_i.
  float2* normalisation;  // (B, T, H)
};

/// Arguments of a backward.
struct Backward {
  HeadDims dims;
  SoftmaxTiling tiling = SoftmaxTiling::by_shape;
  float exponent_scale = cuda::exponent_scale(dims.d_h);
  float score_scale = cuda::score_scale(dims.d_h);
  Rows<const float> q, k, v, o, d_o;  // (B, T, H, d)
  Rows<float> dq, dk, dv;             // (B, T, H, d), overwritten
  const float2* normalisation;        // (B, T, H), what forward saved
  /// Per query D_i and the rounding error of the sum of row i of dx; passed from the queries'
  /// kernel to the keys' where there are two.
  float2* row_terms;  // (B, T, H), overwritten
};

/// Plain float32 arithmetic: softmax_forward.cu and softmax_backward.cu.
void forward_float32(cudaStream_t stream, const Forward& args);
void backward_float32(cudaStream_t stream, const Backward& args);

/// The sequences that takes_whole_lane (softmax_tiles.h) names, float32 in one kernel:
/// softmax_backward_lane.cu.
void backward_whole_lane(cudaStream_t stream, const Backward& args);

/// Tensor cores, softmax_forward_mma.cu and softmax_backward_mma.cu; `precision` is tf32 or bf16.
void forward_tensor_cores(cudaStream_t stream, Precision precision, const Forward& args);
void backward_tensor_cores(cudaStream_t stream, Precision precision, const Backward& args);

/// In place: row i of every (T, T) matrix becomes the softmax of its first i + 1 elements, and zero
/// elsewhere.
void softmax_rows(cudaStream_t stream, float* scores, Index lanes, Index tokens);  // (B * H, T, T)

}  // namespace vla_bench::mixers::softmax::cuda
