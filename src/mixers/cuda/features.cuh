// Feature maps, unit vectors and their backward on a GPU: D / 4 lanes a token and head, four
// channels a lane, so that a request of memory is as wide as one can be. The CPU's are in
// mixers/feature_map.h.
#pragma once

#include <cstdint>

#include "config/enums.h"
#include "mixers/recurrence/lines.cuh"
#include "mixers/feature_floor.h"

namespace vla_bench::mixers::cuda {

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

/// A lane's share of a token's channels.
inline constexpr int kShare = 4;
using Share = float[kShare];

/// The token and head that the calling lane works on with its neighbours: lane l has channels 4 l
/// to 4 l + 3. Of `width` channels that exist, a multiple of four; the others are read as 0 and not
/// written. Lanes beyond the last token read along with its own, since sums want whole warps, and
/// write nothing.
template <int D>
class TokenLanes {
 public:
  static constexpr int kLanes = D / kShare;

  /// Lanes of a grid of one-dimensional blocks go through (B, T, H) in order. Their number fits 32
  /// bits as long as an array (B, T, H, 8) fits a GPU; a 64-bit division costs more than the rest.
  __device__ explicit TokenLanes(const HeadDims& dims) {
    const unsigned scalars = static_cast<unsigned>(dims.batch * dims.tokens * dims.heads);
    const unsigned group = (blockIdx.x * blockDim.x + threadIdx.x) / kLanes;
    const unsigned scalar = min(group, scalars - 1);
    const unsigned row = scalar / static_cast<unsigned>(dims.heads);
    const auto tokens = static_cast<unsigned>(dims.tokens);
    valid_ = group < scalars;
    channel_ = static_cast<int>(threadIdx.x % kLanes) * kShare;
    exists_ = channel_ < static_cast<int>(dims.d_h);
    batch_ = row / tokens;
    token_ = row % tokens;
    head_ = scalar % static_cast<unsigned>(dims.heads);
    scalar_ = scalar;
  }

  /// Whether this lane's channels are there at all.
  __device__ bool exists() const { return exists_; }
  /// Whether this lane writes what a token has one of.
  __device__ bool writes_scalars() const { return valid_ && channel_ == 0; }
  /// Of a (B, T, H) array.
  __device__ Index scalar() const { return scalar_; }

  template <class T>
  __device__ T* of(const TokenView<T>& view) const {
    return view.data + batch_ * view.batch + token_ * view.token + head_ * view.head;
  }

  __device__ void load(const TokenView<const float>& view, Share& to) const {
    const float* from = of(view) + channel_;
    if (!exists_) {
      to[0] = to[1] = to[2] = to[3] = 0.0F;
    } else if (is_whole_quad(from)) {
      const float4 quad = *reinterpret_cast<const float4*>(from);
      to[0] = quad.x;
      to[1] = quad.y;
      to[2] = quad.z;
      to[3] = quad.w;
    } else {
#pragma unroll
      for (int i = 0; i < kShare; ++i) to[i] = from[i];
    }
  }

  __device__ void store(const TokenView<float>& view, const Share& from) const {
    if (!valid_ || !exists_) return;
    float* to = of(view) + channel_;
    if (is_whole_quad(to)) {
      *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
    } else {
#pragma unroll
      for (int i = 0; i < kShare; ++i) to[i] = from[i];
    }
  }

  /// sum += the token's channels of `view`, when there is one.
  __device__ void add(const TokenView<const float>& view, Share& sum) const {
    if (view.data == nullptr) return;
    Share addend;
    load(view, addend);
#pragma unroll
    for (int i = 0; i < kShare; ++i) sum[i] += addend[i];
  }

  /// x . y over the token's channels, in each of its lanes.
  __device__ static float dot(const Share& x, const Share& y) {
    return group_sum<kLanes>(partial_dot(x, y));
  }
  __device__ static float norm(const Share& x) { return sqrtf(dot(x, x)); }

  /// x <- unit(x); returns |x|.
  __device__ static float make_unit(Share& x) {
    const float length = norm(x);
    const float scale = 1.0F / at_least(length, kSmallestNorm);
#pragma unroll
    for (int i = 0; i < kShare; ++i) x[i] *= scale;
    return length;
  }

  /// dy <- (dy - y (y . dy)) / length for y = unit(x), length = |x|; below the floor, dy / floor.
  __device__ static void unit_backward(const Share& y, float length, Share& dy) {
    float along = dot(y, dy);  // not below a condition: sums want whole warps
    if (length < kSmallestNorm) along = 0.0F;
    const float scale = 1.0F / at_least(length, kSmallestNorm);
#pragma unroll
    for (int i = 0; i < kShare; ++i) dy[i] = fmaf(-y[i], along, dy[i]) * scale;
  }

 private:
  __device__ static bool is_whole_quad(const float* at) {
    return reinterpret_cast<std::uintptr_t>(at) % sizeof(float4) == 0;
  }

  bool valid_, exists_;
  int channel_;
  unsigned batch_, token_, head_, scalar_;
};

inline constexpr int kFeatureThreads = 128;  // of a block
template <int D>
unsigned feature_blocks(const HeadDims& dims) {
  constexpr Index kTokensOfBlock = kFeatureThreads / TokenLanes<D>::kLanes;
  return static_cast<unsigned>((dims.rows() * dims.heads + kTokensOfBlock - 1) / kTokensOfBlock);
}

}  // namespace vla_bench::mixers::cuda
