#include "core/cuda/check.h"
#include "core/cuda/warp.h"
#include "mixers/recurrence/cuda_token.cuh"
#include "mixers/recurrence/normaliser.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <int D>
inline constexpr int kWalkThreads = D < 32 ? 32 : D;

/// A block a lane.
template <int D>
__global__ void __launch_bounds__(kWalkThreads<D>)
    normaliser_forward_kernel(const NormaliserForward args) {
  __shared__ DenominatorProducts<D> products;
  walk_denominators<D>(args, static_cast<int>(blockIdx.x), products);
}

/// A segment of a lane.
struct NormaliserSegment {
  int lane, first, end;
  __device__ NormaliserSegment(const NormaliserForward& args, int segments)
      : lane(static_cast<int>(blockIdx.x) / segments),
        first(static_cast<int>(blockIdx.x) % segments *
              static_cast<int>(normaliser_segment(args.dims.tokens))),
        end(static_cast<int>(min(first + normaliser_segment(args.dims.tokens), args.dims.tokens))) {
  }
};

/// Sums of f over each segment, a thread a channel: sums (lanes, segments, D).
template <int D>
__global__ void __launch_bounds__(kWalkThreads<D>)
    sum_segments_kernel(const NormaliserForward args, int segments, float* sums) {
  const NormaliserSegment segment(args, segments);
  const auto heads = static_cast<int>(args.dims.heads);
  const auto channel = static_cast<int>(threadIdx.x);
  if (channel >= D) return;
  const bool exists = channel < static_cast<int>(args.dims.d_h);
  const float* f = args.f.lane(segment.lane / heads, segment.lane % heads) + channel;
  float sum[4] = {};
  for (int start = segment.first; exists && start < segment.end; start += kWalkTokens) {
#pragma unroll
    for (int i = 0; i < kWalkTokens; ++i) {
      const bool valid = start + i < segment.end;
      sum[i % 4] += valid ? f[(start + i) * args.f.token] : 0.0F;
    }
  }
  sums[static_cast<Index>(blockIdx.x) * D + channel] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

constexpr int kScanThreads = 128;
/// Sums before each segment in place of each segment's: a warp a lane's channel.
template <int D>
__global__ void __launch_bounds__(kScanThreads) scan_segments_kernel(int segments, float* sums) {
  const int member = static_cast<int>(threadIdx.x) % kWarp;
  const int channel =
      static_cast<int>(blockIdx.y) * (kScanThreads / kWarp) + static_cast<int>(threadIdx.x) / kWarp;
  float* values = sums + static_cast<Index>(blockIdx.x) * segments * D + channel;
  float before = 0.0F;
#pragma unroll 4
  for (int first = 0; first < segments; first += kWarp) {
    const int segment = first + member;
    float sum = segment < segments ? values[static_cast<Index>(segment) * D] : 0.0F;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const float other = __shfl_up_sync(0xFFFFFFFFU, sum, offset);
      if (member >= offset) sum += other;
    }
    const float earlier = __shfl_up_sync(0xFFFFFFFFU, sum, 1);
    if (segment < segments) {
      values[static_cast<Index>(segment) * D] = member == 0 ? before : before + earlier;
    }
    before += __shfl_sync(0xFFFFFFFFU, sum, kWarp - 1);
  }
}

template <int D>
__global__ void __launch_bounds__(kWalkThreads<D>)
    segment_denominators_kernel(const NormaliserForward args, int segments, const float* sums) {
  __shared__ DenominatorProducts<D> products;
  const NormaliserSegment segment(args, segments);
  const auto channel = static_cast<int>(threadIdx.x);
  const float z = channel < D ? sums[static_cast<Index>(blockIdx.x) * D + channel] : 0.0F;
  walk_denominators<D>(args, segment.lane, segment.first, segment.end, z, products);
}

// The backward: blocks (segment of a lane, in time or against it), sums (2, lanes, segments, D)
// with the segments in the order of the walk.

/// A segment of a lane in one of the two walks.
struct GradientSegment {
  int lane, index, first, count;
  bool in_time;
  __device__ GradientSegment(int tokens, int segments)
      : lane(static_cast<int>(blockIdx.x) / segments),
        index(static_cast<int>(blockIdx.x) % segments),
        first((blockIdx.y == 0 ? index : segments - 1 - index) *
              static_cast<int>(normaliser_segment(tokens))),
        count(min(static_cast<int>(normaliser_segment(tokens)), tokens - first)),
        in_time(blockIdx.y == 0) {}
  template <int D>
  __device__ Index slot() const {
    return (static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x) * D + threadIdx.x;
  }
};

/// Sums of f, and of dc q.
template <int D>
__global__ void __launch_bounds__(kWalkThreads<D>)
    sum_gradients_kernel(const HeadDims dims, const NormaliserWalks args, int segments,
                         float* sums) {
  const auto tokens = static_cast<int>(dims.tokens);
  const auto heads = static_cast<int>(dims.heads);
  const GradientSegment segment(tokens, segments);
  const auto channel = static_cast<int>(threadIdx.x);
  if (channel >= D) return;
  const int batch = segment.lane / heads;
  const int head = segment.lane % heads;
  const bool exists = channel < static_cast<int>(dims.d_h);
  const TokenView<const float>& source = segment.in_time ? args.f : args.q;
  const float* from = source.lane(batch, head) + channel;
  const float* dc = args.d_denominator + static_cast<Index>(batch) * tokens * heads + head;
  float sum[4] = {};
  for (int start = 0; exists && start < segment.count; start += kWalkTokens) {
#pragma unroll
    for (int i = 0; i < kWalkTokens; ++i) {
      if (start + i >= segment.count) continue;
      const Index at = segment.first + start + i;
      sum[i % 4] =
          fmaf(segment.in_time ? 1.0F : dc[at * heads], from[at * source.token], sum[i % 4]);
    }
  }
  sums[segment.slot<D>()] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <int D>
__global__ void __launch_bounds__(kWalkThreads<D>)
    segment_gradients_kernel(const HeadDims dims, const NormaliserWalks args, int segments,
                             const float* sums) {
  const GradientSegment segment(static_cast<int>(dims.tokens), segments);
  const auto channel = static_cast<int>(threadIdx.x);
  if (channel >= static_cast<int>(dims.d_h)) return;
  walk_gradients(args, static_cast<int>(dims.tokens), static_cast<int>(dims.heads), segment.lane,
                 channel, segment.first, segment.count, segment.in_time, sums[segment.slot<D>()]);
}

template <int D>
__global__ void __launch_bounds__(kTokenThreads)
    normaliser_terms_kernel(const NormaliserTerms args) {
  const TokenLanes<D> at(args.dims);
  const float along = at.dot(at.load(args.o), at.load(args.d_o));
  if (!at.writes_scalars()) return;
  const float c = args.denominator[at.scalar()];
  args.scale[at.scalar()] = 1.0F / at_least(c, args.floor);
  args.d_denominator[at.scalar()] = c < args.floor ? 0.0F : -along / c;
}

void run_segments(cudaStream_t stream, const NormaliserForward& args) {
  const Index segments = normaliser_segments(args.dims.tokens);
  const auto lanes = static_cast<unsigned>(args.dims.lanes());
  const auto blocks = static_cast<unsigned>(args.dims.lanes() * segments);
  const auto count = static_cast<int>(segments);
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    sum_segments_kernel<D><<<blocks, kWalkThreads<D>, 0, stream>>>(args, count, args.sums);
    const dim3 grid(lanes, D * 32 / kScanThreads);
    scan_segments_kernel<D><<<grid, kScanThreads, 0, stream>>>(count, args.sums);
    segment_denominators_kernel<D><<<blocks, kWalkThreads<D>, 0, stream>>>(args, count, args.sums);
  });
  VLA_CUDA_LAUNCHED("segment_denominators_kernel");
}

}  // namespace

void normaliser_forward(cudaStream_t stream, const NormaliserForward& args) {
  if (args.sums != nullptr) return run_segments(stream, args);
  with_rule_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    normaliser_forward_kernel<D>
        <<<static_cast<unsigned>(args.dims.lanes()), kWalkThreads<D>, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("normaliser_forward_kernel");
}

void normaliser_backward(cudaStream_t stream, const HeadDims& dims, const NormaliserWalks& args,
                         float* sums) {
  const Index segments = normaliser_segments(dims.tokens);
  const dim3 blocks(static_cast<unsigned>(dims.lanes() * segments), 2);
  const auto count = static_cast<int>(segments);
  with_head_size(dims.d_h, [&](auto d) {
    constexpr int D = d;
    sum_gradients_kernel<D><<<blocks, kWalkThreads<D>, 0, stream>>>(dims, args, count, sums);
    const dim3 grid(static_cast<unsigned>(2 * dims.lanes()), D * 32 / kScanThreads);
    scan_segments_kernel<D><<<grid, kScanThreads, 0, stream>>>(count, sums);
    segment_gradients_kernel<D><<<blocks, kWalkThreads<D>, 0, stream>>>(dims, args, count, sums);
  });
  VLA_CUDA_LAUNCHED("segment_gradients_kernel");
}

void normaliser_terms(cudaStream_t stream, const NormaliserTerms& args) {
  with_rule_head_size(args.dims.d_h, [&](auto d) {
    normaliser_terms_kernel<d><<<token_blocks<d>(args.dims), kTokenThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("normaliser_terms_kernel");
}

}  // namespace vla_bench::mixers::cuda
