#include <cuda_bf16.h>

#include <algorithm>

#include "core/cuda/check.h"
#include "mixers/bf16_copies.h"

namespace vla_bench::mixers {
namespace {

template <class From, class To>
__global__ void copy_kernel(HeadDims dims, HeadView<const From> from, HeadView<To> to) {
  const Index count = dims.batch * dims.tokens * dims.heads * dims.d_h;
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const Index channel = i % dims.d_h;
    const Index head = i / dims.d_h % dims.heads;
    const Index row = i / dims.d_h / dims.heads;
    to.data[row * to.row_stride + head * to.head_stride + channel] =
        static_cast<To>(from.data[row * from.row_stride + head * from.head_stride + channel]);
  }
}

template <class From, class To>
void copy(cudaStream_t stream, const HeadDims& dims, HeadView<const From> from, HeadView<To> to) {
  constexpr Index kThreads = 256;
  // Several thread blocks per multiprocessor on any GPU; each loops over the remaining elements.
  constexpr Index kMostBlocks = 4096;
  const Index count = dims.rows() * dims.heads * dims.d_h;
  if (count == 0) return;
  const Index blocks = std::min((count + kThreads - 1) / kThreads, kMostBlocks);
  copy_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(dims, from, to);
  VLA_CUDA_LAUNCHED("copy_kernel");
}

template <class T>
HeadView<T> packed(const HeadDims& dims, T* data) {
  return {data, dims.heads * dims.d_h, dims.d_h};
}

}  // namespace

void pack_bf16(cudaStream_t stream, const HeadDims& dims, HeadView<const float> from,
               std::uint16_t* to) {
  copy(stream, dims, from, packed(dims, reinterpret_cast<__nv_bfloat16*>(to)));
}

void unpack_bf16(cudaStream_t stream, const HeadDims& dims, const std::uint16_t* from,
                 HeadView<float> to) {
  copy(stream, dims, packed(dims, reinterpret_cast<const __nv_bfloat16*>(from)), to);
}

}  // namespace vla_bench::mixers
