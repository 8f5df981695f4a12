// The backward of vla_chunked_cuda.h, after its forward: steps 6 to 11 and 15 of vla_chunked.h.
//
// Z (w^), |b| and delta of every token are kept, and A behind every segment. So L is known,
// L_ts = u_t . z_s, and only its inverse is taken; A at a chunk's entry is A at its exit + Z Z^T
// less its nudges. Going against time the terms grow, so that this sum rounds no worse than A.
//
// In four launches, the middle two with more than one segment only:
//   gradients of b  6 (direction_gradients)
//   elements        15: G at a segment's entry with G = 0 behind it, and F of the segment, the
//                   product over its chunks of I - Z (u L^-T)^T, as F^T; every segment but the first
//   join            15: a block a lane, from the last segment to the first; G behind each
//   chunks          7 to 11 from there
// Sums that A is made of are of float32 grade, other products of the grade asked for.
//
// Multiply-adds a token and head, b = C + 16 (blocks of 16 counted whole, C the tokens of a chunk):
//   elements  5 d^2 + 3.5 d b + b^2 / 2          join  2 d^3 a segment
//   chunks    5.5 d^2 + 4.5 d b + b^2 / 2
// Bytes a token and head: 20 d and 16 d read, 12 d written.
#include "core/cuda/check.h"
#include "mixers/vla/vla_chunked_backward.cuh"
#include "mixers/vla/vla_penalty_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

template <int D, Grade kGrade, bool kLocal>
__global__ void __launch_bounds__(BackwardShape<D>::kThreads, BackwardShape<D>::kBlocks)
    penalty_backward_chunks_kernel(const ChunksBackwardArgs args) {
  extern __shared__ float4 memory[];
  ChunksBackward<D, kGrade, kLocal>(args, *reinterpret_cast<BackwardTiles<D>*>(memory)).run();
}

template <int D>
struct BackwardJoinTiles {
  static constexpr int kMatrix = D * BackwardShape<D>::kStride;
  alignas(16) float F[kMatrix];
  alignas(16) float G[kMatrix];
  alignas(16) float product[kMatrix];
};

/// 15: G behind a segment from that behind the next one, G <- F^T G F + G_local.
template <int D>
__global__ void __launch_bounds__(BackwardShape<D>::kThreads, 1)
    penalty_backward_join_kernel(const GradientJoin args) {
  extern __shared__ float4 memory[];
  auto& tiles = *reinterpret_cast<BackwardJoinTiles<D>*>(memory);
  constexpr int kStride = BackwardShape<D>::kStride;
  constexpr int kThreads = BackwardShape<D>::kThreads;
  const Team block = Team::block();
  const Index lane = static_cast<Index>(blockIdx.x) * args.segments;
  const Matrix F{tiles.F, kStride, 1}, G{tiles.G, kStride, 1}, product{tiles.product, kStride, 1};
  const auto each = [&](const auto& body) {
    for (int i = static_cast<int>(threadIdx.x); i < D * D; i += kThreads) body(i, i / D, i % D);
  };
  for (int segment = args.segments - 1; segment > 0; --segment) {
    const float* local = args.local + (lane + segment) * D * D;
    if (segment + 1 == args.segments) {
      each([&](int at, int i, int j) { G(i, j) = local[at]; });
    } else {
      const float* from = args.F + (lane + segment) * D * D;
      each([&](int at, int i, int j) { F(i, j) = from[at]; });
      __syncthreads();
      for_tiles<D / 16, D / 16>(block, [&](int row, int column) {
        WarpTile<1, 2> tile;
        tile.template add_product<Grade::float32>(F.from(16 * row, 0), G.from(0, 16 * column),
                                                  {0, D});
        tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
          *reinterpret_cast<float2*>(&product(i, j)) = make_float2(x, y);
        });
      });
      __syncthreads();
      for_lower_tiles<D / 16>(block, [&](int row, int column) {
        WarpTile<1, 2> tile;
        tile.template add_product<Grade::float32>(product.from(16 * row, 0),
                                                  F.transposed().from(0, 16 * column), {0, D});
        const auto put = [&](int i, int j, float x) {
          if (j <= i) G(i, j) = G(j, i) = local[i * D + j] + x;
        };
        tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
          put(i, j, x);
          put(i, j + 1, y);
        });
      });
    }
    __syncthreads();
    float* behind = args.behind + (lane + segment - 1) * D * D;
    each([&](int at, int i, int j) { behind[at] = G(i, j); });
  }
}

template <int D, Grade kGrade, bool kLocal>
void launch_chunks(cudaStream_t stream, const ChunksBackwardArgs& args, unsigned lanes) {
  constexpr int kBytes = sizeof(BackwardTiles<D>);
  allow_shared_memory(
      reinterpret_cast<const void*>(penalty_backward_chunks_kernel<D, kGrade, kLocal>), kBytes);
  const dim3 grid(static_cast<unsigned>(args.segment.segments - (kLocal ? 1 : 0)), lanes);
  penalty_backward_chunks_kernel<D, kGrade, kLocal>
      <<<grid, BackwardShape<D>::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("penalty_backward_chunks_kernel");
}

template <int D, Grade kGrade>
void launch(cudaStream_t stream, const ChunksBackwardArgs& args, unsigned lanes) {
  if (args.segment.segments > 1) {
    launch_chunks<D, kGrade, true>(stream, args, lanes);
    constexpr int kBytes = sizeof(BackwardJoinTiles<D>);
    allow_shared_memory(reinterpret_cast<const void*>(penalty_backward_join_kernel<D>), kBytes);
    penalty_backward_join_kernel<D>
        <<<lanes, BackwardShape<D>::kThreads, kBytes, stream>>>(args.join);
    VLA_CUDA_LAUNCHED("penalty_backward_join_kernel");
  }
  launch_chunks<D, kGrade, false>(stream, args, lanes);
}
}  // namespace

template <int D>
void penalty_backward_chunked(cudaStream_t stream, const PenaltyBackward& args, const float* ends,
                              const TokenView<float>& du, const TokenView<float>& dk,
                              const PenaltyChunks& chunks) {
  const HeadDims& dims = args.dims;
  direction_gradients(stream, args);
  const SegmentArgs segment = cut_segments(dims, args.settings, chunks.segments, args.u);
  const Index matrices = penalty_ends_size(dims, segment.segments);
  const ChunksBackwardArgs kernel_args{.segment = segment,
                                       .k = {dims, args.k},
                                       .w = {dims, args.w},
                                       .db = {dims, TokenView<const float>(args.db)},
                                       .delta = args.delta,
                                       .ends = ends,
                                       .du = {dims, du},
                                       .dk = {dims, dk},
                                       .join = {.segments = segment.segments,
                                                .F = chunks.workspace,
                                                .local = chunks.workspace + matrices,
                                                .behind = chunks.workspace + 2 * matrices}};
  const auto lanes = static_cast<unsigned>(dims.lanes());
  if (chunks.grade == Grade::tf32) {
    launch<D, Grade::tf32>(stream, kernel_args, lanes);
  } else {
    launch<D, Grade::float32>(stream, kernel_args, lanes);
  }
}
#define VLA_INSTANTIATE(d)                                                                      \
  template void penalty_backward_chunked<d>(cudaStream_t, const PenaltyBackward&, const float*, \
                                            const TokenView<float>&, const TokenView<float>&,   \
                                            const PenaltyChunks&);
VLA_FOR_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
