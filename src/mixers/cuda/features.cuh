// Feature maps, unit vectors and their backward on a GPU: a warp a token and head. The CPU's are in
// mixers/feature_map.h.
#pragma once

#include "config/enums.h"
#include "mixers/cuda/token_tiles.cuh"
#include "mixers/feature_floor.h"

namespace vla_bench::mixers::cuda {

inline constexpr int kLanesOfWarp = 32;
inline constexpr float kSmallestNorm = static_cast<float>(kUnitFloor);

/// phi(x)
__device__ inline float apply_feature_map(FeatureMap map, float x) {
  switch (map) {
    case FeatureMap::elu1:
      return x > 0.0F ? x + 1.0F : expf(x);
    case FeatureMap::identity:
      return x;
    case FeatureMap::relu:
      return x <= 0.0F ? 0.0F : x;  // written so that NaN passes through
    case FeatureMap::silu:
      return x / (1.0F + expf(-x));
  }
  return x;
}

/// dy phi'(x)
__device__ inline float feature_map_backward(FeatureMap map, float x, float dy) {
  switch (map) {
    case FeatureMap::elu1:
      return x > 0.0F ? dy : dy * expf(x);
    case FeatureMap::identity:
      return dy;
    case FeatureMap::relu:
      return x > 0.0F ? dy : 0.0F;
    case FeatureMap::silu: {
      const float sigma = 1.0F / (1.0F + expf(-x));
      return dy * sigma * (1.0F + x * (1.0F - sigma));
    }
  }
  return dy;
}

/// A warp's share of a vector of D channels: channel i of lane l is l + 32 i. Of `width` channels
/// that exist; the others are read as 0 and not written.
template <int D>
inline constexpr int kShare = (D + kLanesOfWarp - 1) / kLanesOfWarp;

template <int D>
__device__ inline void load_share(const float* from, int width, float (&to)[kShare<D>]) {
#pragma unroll
  for (int i = 0; i < kShare<D>; ++i) {
    const int channel = threadIdx.x % kLanesOfWarp + kLanesOfWarp * i;
    to[i] = channel < width ? from[channel] : 0.0F;
  }
}
template <int D>
__device__ inline void store_share(float* to, int width, const float (&from)[kShare<D>]) {
#pragma unroll
  for (int i = 0; i < kShare<D>; ++i) {
    const int channel = threadIdx.x % kLanesOfWarp + kLanesOfWarp * i;
    if (channel < width) to[channel] = from[i];
  }
}

template <int N>
__device__ inline float share_dot(const float (&x)[N], const float (&y)[N]) {
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < N; ++i) sum = fmaf(x[i], y[i], sum);
  return group_sum<kLanesOfWarp>(sum);
}
template <int N>
__device__ inline float share_norm(const float (&x)[N]) {
  return sqrtf(share_dot(x, x));
}

/// dy <- (dy - y (y . dy)) / norm for y = unit(x), norm = |x|; below the floor, dy / floor.
template <int N>
__device__ inline void unit_backward(const float (&y)[N], float norm, float (&dy)[N]) {
  float along = share_dot(y, dy);
  if (norm < kSmallestNorm) along = 0.0F;
  const float scale = 1.0F / at_least(norm, kSmallestNorm);
#pragma unroll
  for (int i = 0; i < N; ++i) dy[i] = fmaf(-y[i], along, dy[i]) * scale;
}

/// Which token and head the calling warp works on; `valid` is false beyond the last.
struct WarpToken {
  bool valid;
  int width;  // channels of a head
  int batch, head;
  Index token;   // within its sequence
  Index scalar;  // of a (B, T, H) array

  /// Warps of a grid of one-dimensional blocks go through (B, T, H) in order.
  __device__ static WarpToken here(const HeadDims& dims) {
    const Index warp = (static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x) / kLanesOfWarp;
    const Index row = warp / dims.heads;
    return {row < dims.batch * dims.tokens,
            static_cast<int>(dims.d_h),
            static_cast<int>(row / dims.tokens),
            static_cast<int>(warp % dims.heads),
            row % dims.tokens,
            warp};
  }

  template <class T>
  __device__ T* of(const TokenView<T>& view) const {
    return view.data + batch * view.batch + token * view.token + head * view.head;
  }
};

/// sum += the token's share of `view`, when there is one.
template <int D>
__device__ inline void add_share(const WarpToken& at, const TokenView<const float>& view,
                                 float (&sum)[kShare<D>]) {
  if (view.data == nullptr) return;
  float addend[kShare<D>];
  load_share<D>(at.of(view), at.width, addend);
#pragma unroll
  for (int i = 0; i < kShare<D>; ++i) sum[i] += addend[i];
}

inline constexpr int kFeatureThreads = 128;  // of a block: four tokens
inline unsigned feature_blocks(const HeadDims& dims) {
  constexpr Index kTokensOfBlock = kFeatureThreads / kLanesOfWarp;
  return static_cast<unsigned>((dims.rows() * dims.heads + kTokensOfBlock - 1) / kTokensOfBlock);
}

}  // namespace vla_bench::mixers::cuda
