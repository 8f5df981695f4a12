// Views of the rows of q, k, v, ... in kernels, one lane (batch element and head) at a time.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "mixers/mixer.h"

namespace vla_bench::mixers::softmax::cuda {

/// Row t of a lane, d channels, is at first + t * stride.
template <class T>
struct LaneRows {
  T* first;
  Index stride;
  bool vectors;  // every fourth channel of every row is 16-byte aligned

  __device__ T* at(Index token) const { return first + token * stride; }
};

/// A HeadView and whether its layout allows loads of four channels.
template <class T>
struct Rows {
  HeadView<T> view;
  bool vectors = false;

  Rows() = default;
  explicit Rows(const HeadView<T>& view_)
      : view(view_),
        vectors(reinterpret_cast<std::uintptr_t>(view_.data) % sizeof(float4) == 0 &&
                view_.row_stride % 4 == 0 && view_.head_stride % 4 == 0) {}

  __device__ LaneRows<T> lane(int batch, int tokens, int head) const {
    return {
        view.data + static_cast<Index>(batch) * tokens * view.row_stride + head * view.head_stride,
        view.row_stride, vectors};
  }
};

/// Loads the channels channel .. channel + 3 of a row; zeros where `inside` is false.
__device__ inline float4 load_quad(const LaneRows<const float>& rows, Index token, int channel,
                                   bool inside = true) {
  if (!inside) return make_float4(0.0F, 0.0F, 0.0F, 0.0F);
  const float* from = rows.at(token) + channel;
  if (rows.vectors) return *reinterpret_cast<const float4*>(from);
  return make_float4(from[0], from[1], from[2], from[3]);
}

__device__ inline void store_quad(const LaneRows<float>& rows, Index token, int channel,
                                  float4 value) {
  float* to = rows.at(token) + channel;
  if (rows.vectors) {
    *reinterpret_cast<float4*>(to) = value;
  } else {
    to[0] = value.x;
    to[1] = value.y;
    to[2] = value.z;
    to[3] = value.w;
  }
}

/// The lane and tile of a thread block: heads along x, batch elements along y, tiles of tokens
/// along z, so that the first tile of every lane starts before the second of any.
struct BlockLane {
  int tokens, heads;

  template <class T>
  __device__ LaneRows<T> rows(const Rows<T>& all) const {
    return all.lane(static_cast<int>(blockIdx.y), tokens, static_cast<int>(blockIdx.x));
  }
  /// Index of this lane's token in a (B, T, H) array.
  __device__ Index term(Index token) const {
    return (static_cast<Index>(blockIdx.y) * tokens + token) * heads + blockIdx.x;
  }
  /// The tile, long rows first, so that short ones fill the gaps at the end.
  __device__ static int tile_from_last() { return static_cast<int>(gridDim.z - 1 - blockIdx.z); }
  __device__ static int tile_from_first() { return static_cast<int>(blockIdx.z); }
};

}  // namespace vla_bench::mixers::softmax::cuda
