// chunk_passes.h: M behind each segment, one after the other (14 and 15 of chunked.h).
#include "core/cuda/check.h"
#include "mixers/recurrence/chunk_passes.h"
#include "mixers/recurrence/pipeline.cuh"

namespace vla_bench::mixers::cuda {
namespace {

/// Rows of M of one lane by a block, two rows and two columns by a thread. Plain float32: there are
/// few segments.
template <int D>
struct JoinShape {
  static constexpr int kRows = D == 128 ? 16 : D == 16 ? 8 : 4;
  static constexpr int kThreads = kRows / 2 * D / 2;
  static constexpr int kBuffers = 3;
  static constexpr int kSharedBytes = (kBuffers * D * D + 2 * kRows * D) * 4;
};

/// Two rows of x (D), times columns 2 i and 2 i + 1 of a map (D, D), added to `sum`.
template <int D>
__device__ inline void multiply_map(const float* rows, const float* map, float2 (&sum)[2]) {
#pragma unroll 4
  for (int k = 0; k < D; k += 4) {
    float2 y[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) y[i] = *reinterpret_cast<const float2*>(map + (k + i) * D);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float4 x = *reinterpret_cast<const float4*>(rows + r * D + k);
      const float at[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sum[r].x = fmaf(at[i], y[i].x, sum[r].x);
        sum[r].y = fmaf(at[i], y[i].y, sum[r].y);
      }
    }
  }
}

template <int D>
__global__ void __launch_bounds__(JoinShape<D>::kThreads)
    join_segments_kernel(const ChunkedSegments args) {
  using Shape = JoinShape<D>;
  constexpr int kSlot = (D + 1) * D;
  constexpr int kRowsSize = Shape::kRows * D;
  extern __shared__ float4 memory[];
  float* maps = reinterpret_cast<float*>(memory);
  float* rows = maps + Shape::kBuffers * D * D;  // two buffers
  const auto thread = static_cast<int>(threadIdx.x);
  const int column = thread % (D / 2) * 2;
  const int own = thread / (D / 2) * 2 * D + column;  // of the thread's first row
  const Index slot = static_cast<Index>(blockIdx.x) * args.segments;
  float* states = args.states + slot * kSlot + blockIdx.y * kRowsSize + own;
  const int joins = args.segments - 1;

  const auto load_map = [&](int segment) {
    if (segment < joins) {
      const float* from = args.maps + (slot + segment) * D * D;
      float* to = maps + segment % Shape::kBuffers * D * D;
      for (int i = 4 * thread; i < D * D; i += 4 * Shape::kThreads) {
        copy_async_16(to + i, from + i, true);
      }
    }
    close_group();
  };
  const auto at = [](float* row, int r) { return reinterpret_cast<float2*>(row + r * D); };
  load_map(0);
  load_map(1);
#pragma unroll
  for (int r = 0; r < 2; ++r) *at(rows + own, r) = make_float2(0.0F, 0.0F);
#pragma unroll 1
  for (int segment = 0; segment < joins; ++segment) {
    float* state = states + static_cast<Index>(segment) * kSlot;
    float2 sum[2] = {*at(state, 0), *at(state, 1)};
    wait_for_groups<1>();
    __syncthreads();
    load_map(segment + 2);
    multiply_map<D>(rows + segment % 2 * kRowsSize + own - column,
                    maps + segment % Shape::kBuffers * D * D + column, sum);
    float* next = rows + (segment + 1) % 2 * kRowsSize + own;
#pragma unroll
    for (int r = 0; r < 2; ++r) *at(next, r) = *at(state, r) = sum[r];
  }
}

constexpr int kAddThreads = 128;
/// Without a residual Phi is a number, or one a channel. `elements` of a slot: S, and z.
__global__ void __launch_bounds__(kAddThreads)
    add_segments_kernel(const ChunkedSegments args, int elements, int slot_size, int d) {
  constexpr int kAhead = 8;
  const int element = static_cast<int>(blockIdx.y) * kAddThreads + static_cast<int>(threadIdx.x);
  if (element >= elements) return;
  const Index slot = static_cast<Index>(blockIdx.x) * args.segments;
  float* states = args.states + slot * slot_size + element;
  const int joins = args.segments - 1;
  float sum = 0.0F;
  for (int first = 0; first < joins; first += kAhead) {
    float local[kAhead], factor[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const bool valid = first + i < joins;
      local[i] = valid ? states[static_cast<Index>(first + i) * slot_size] : 0.0F;
      factor[i] = valid ? args.factors[(slot + first + i) * d + element % d] : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= joins) continue;
      sum = fmaf(factor[i], sum, local[i]);
      states[static_cast<Index>(first + i) * slot_size] = sum;
    }
  }
}

template <int D>
void launch_maps(cudaStream_t stream, const ChunkedSegments& args, Index lanes) {
  using Shape = JoinShape<D>;
  const auto kernel = join_segments_kernel<D>;
  constexpr int kBytes = Shape::kSharedBytes;
  VLA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(lanes), D / Shape::kRows);
  kernel<<<grid, Shape::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("join_segments_kernel");
}

}  // namespace

void join_segments(cudaStream_t stream, const ChunkedPass& pass, const ChunkedSegments& args) {
  if (pass.along_r == AlongR::residual) {
    return with_head_size(pass.d, [&](auto d) { launch_maps<d>(stream, args, pass.lanes); });
  }
  const auto d = static_cast<int>(kernel_head_size(pass.d));
  const int slot = (d + 1) * d;
  const int elements = pass.normalises ? slot : d * d;
  const dim3 grid(static_cast<unsigned>(pass.lanes),
                  static_cast<unsigned>((elements + kAddThreads - 1) / kAddThreads));
  add_segments_kernel<<<grid, kAddThreads, 0, stream>>>(args, elements, slot, d);
  VLA_CUDA_LAUNCHED("add_segments_kernel");
}

}  // namespace vla_bench::mixers::cuda
