// Shared by all kernels of softmax attention: the rows of q, k, v, ... one lane (batch element and
// head) at a time, and how a kernel is launched.
#pragma once

#include <cuda_runtime.h>

#include "core/cuda/check.h"
#include "mixers/softmax/softmax_cuda_launch.h"
#include "mixers/softmax/softmax_tiles.h"

namespace vla_bench::mixers::softmax::cuda {

/// Calls body(i, j, ...) for i < kCount, j < ... in order, all loops unrolled, so that arrays which
/// these numbers index stay in registers.
template <int kCount, int... kInner, class Body>
__device__ __forceinline__ void unrolled(const Body& body) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (sizeof...(kInner) == 0) {
      body(i);
    } else {
      unrolled<kInner...>([&](auto... inner) { body(i, inner...); });
    }
  }
}

/// The dynamic shared memory of the thread block, 16-byte aligned.
__device__ inline float* shared_memory() {
  extern __shared__ float4 softmax_shared_memory[];
  return reinterpret_cast<float*>(softmax_shared_memory);
}

/// 2^x within 2 ulp; 0 below the smallest normal number.
__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Row t of a lane, d channels, is at first + t * stride.
template <class T>
struct LaneRows {
  T* first;
  Index stride;
  bool vectors;  // every fourth channel of every row is 16-byte aligned

  __device__ T* at(Index token) const { return first + token * stride; }
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

/// The lane of a thread block: heads along x, batch elements along y, tiles of tokens along z, so
/// that the first tile of every lane starts before the second of any.
struct BlockLane {
  int tokens, heads;

  __device__ explicit BlockLane(const HeadDims& dims)
      : tokens(static_cast<int>(dims.tokens)), heads(static_cast<int>(dims.heads)) {}

  template <class T>
  __device__ LaneRows<T> rows(const Rows<T>& all) const {
    const int batch = static_cast<int>(blockIdx.y), head = static_cast<int>(blockIdx.x);
    return {all.view.data + static_cast<Index>(batch) * tokens * all.view.row_stride +
                head * all.view.head_stride,
            all.view.row_stride, all.vectors};
  }
  /// Index of this lane's token in a (B, T, H) array.
  __device__ Index term(Index token) const {
    return (static_cast<Index>(blockIdx.y) * tokens + token) * heads + blockIdx.x;
  }
};

/// The grid that BlockLane reads.
inline dim3 grid_of(const HeadDims& dims, Index tile) {
  return dim3(static_cast<unsigned>(dims.heads), static_cast<unsigned>(dims.batch),
              static_cast<unsigned>(tiles(dims.tokens, tile)));
}

/// The rows that a thread block owns, queries or keys, and those of the other kind that it streams.
template <int kTile, bool kQueries>
struct TileRange {
  int first;       // own
  int begin, end;  // streamed

  /// Late queries see many keys and early keys are seen by many queries: these tiles start first,
  /// so that short ones fill the gaps at the end.
  __device__ explicit TileRange(int tokens)
      : first(static_cast<int>(kQueries ? gridDim.z - 1 - blockIdx.z : blockIdx.z) * kTile),
        begin(kQueries ? 0 : first),
        end(kQueries ? min(first + kTile, tokens) : tokens) {}
};

/// The terms from which a query's weights and score gradients are computed.
struct QueryTerms {
  float shift, scale;  // its normalisation
  float delta;         // D
};

/// The terms of a query whose D is `delta`. A query beyond the last token gets weight 0.
__device__ inline QueryTerms query_terms(const Backward& args, const BlockLane& lane, int token,
                                         float delta) {
  const float2 normalisation =
      token < lane.tokens ? args.normalisation[lane.term(token)] : make_float2(0.0F, 0.0F);
  return {normalisation.x, normalisation.y, delta};
}
/// Of a query whose D the queries' kernel has stored.
__device__ inline QueryTerms streamed_terms(const Backward& args, const BlockLane& lane,
                                            int token) {
  if (token >= lane.tokens) return {};
  return query_terms(args, lane, token, args.row_terms[lane.term(token)].x);
}

/// Launches `kernel` for tiles of Tiles::kOwn tokens, with kBytes of dynamic shared memory.
template <class Tiles, int kBytes, class Arguments>
void launch(cudaStream_t stream, const char* name, void (*kernel)(Arguments),
            const Arguments& args) {
  static_assert(kBytes <= kSharedBytes);
  VLA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  kernel<<<grid_of(args.dims, Tiles::kOwn), Tiles::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED(name);
}

/// Calls run.template operator()<d>() with the one of kSizes that is d.
template <int... kSizes, class Run>
void with_head_size(Index d_h, const Run& run) {
  (void)((d_h == kSizes && (run.template operator()<kSizes>(), true)) || ...);
}

}  // namespace vla_bench::mixers::softmax::cuda
