#include <cuda_bf16.h>

#include "core/cuda/check.h"
#include "mixers/softmax/bf16_copies.h"

namespace vla_bench::mixers {
namespace {

constexpr int kThreads = 256;
// Several thread blocks per multiprocessor on any GPU; each loops over the remaining elements.
constexpr Index kMostBlocks = 4096;

/// The layout of a (B, T, H, d) view: element i in packed order is at offset(i).
struct Layout {
  Index count, heads, d_h, row_stride, head_stride;

  __device__ Index offset(Index i) const {
    const Index lane = i / d_h;  // of (B, T, H)
    const Index row = lane / heads;
    return row * row_stride + (lane - row * heads) * head_stride + (i - lane * d_h);
  }
};

__global__ void pack_kernel(Layout layout, const float* from, __nv_bfloat16* to) {
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < layout.count;
       i += step) {
    to[i] = __float2bfloat16_rn(from[layout.offset(i)]);
  }
}

__global__ void unpack_kernel(Layout layout, const __nv_bfloat16* from, float* to) {
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < layout.count;
       i += step) {
    to[layout.offset(i)] = __bfloat162float(from[i]);
  }
}

template <class T>
Layout layout_of(const HeadDims& dims, const HeadView<T>& view) {
  return {dims.rows() * dims.heads * dims.d_h, dims.heads, dims.d_h, view.row_stride,
          view.head_stride};
}

unsigned blocks_for(Index count) {
  return static_cast<unsigned>(min((count + kThreads - 1) / kThreads, kMostBlocks));
}

}  // namespace

void pack_bf16(cudaStream_t stream, const HeadDims& dims, HeadView<const float> from,
               std::uint16_t* to) {
  const Layout layout = layout_of(dims, from);
  if (layout.count == 0) return;
  pack_kernel<<<blocks_for(layout.count), kThreads, 0, stream>>>(
      layout, from.data, reinterpret_cast<__nv_bfloat16*>(to));
  VLA_CUDA_LAUNCHED("pack_kernel");
}

void unpack_bf16(cudaStream_t stream, const HeadDims& dims, const std::uint16_t* from,
                 HeadView<float> to) {
  const Layout layout = layout_of(dims, to);
  if (layout.count == 0) return;
  unpack_kernel<<<blocks_for(layout.count), kThreads, 0, stream>>>(
      layout, reinterpret_cast<const __nv_bfloat16*>(from), to.data);
  VLA_CUDA_LAUNCHED("unpack_kernel");
}

}  // namespace vla_bench::mixers
