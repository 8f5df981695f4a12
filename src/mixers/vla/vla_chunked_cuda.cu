// The chunks of vla_chunked_cuda.h, of one head size.
#include <cuda_bf16.h>

#include "core/cuda/check.h"
#include "mixers/vla/vla_chunked.cuh"
#include "mixers/vla/vla_rule.h"
#include "mixers/vla/vla_segments_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

constexpr float kFloor = static_cast<float>(kUnitFloor);
constexpr float kLeastPivot = static_cast<float>(vla::kLeastPivot);

struct ForwardArgs {
  SegmentArgs segment;
  TokenSource k;
  TokenTarget a, w;
  TokenView<Bfloat16> a_bf16;  // in the place of a, or empty
  float *b_norm, *delta;
  const float* entries;  // (lanes, segments, D, D)
  float* ends;           // the same, or null
  float u_scale;
  bool gain;
  int* low_pivots;
};

template <int D>
struct ForwardTiles {
  static constexpr int C = ChunkShape<D>::kTokens;
  alignas(16) float matrix[D * ChunkShape<D>::kAlong];
  ChunkTiles<D> chunk;
  alignas(16) float k[2][C * ChunkShape<D>::kAlong];
  alignas(16) float b[2][C * ChunkShape<D>::kAlong];
};

template <int D, Grade kGrade>
class Forward {
 public:
  __device__ Forward(const ForwardArgs& args, ForwardTiles<D>& tiles)
      : args_(args),
        tiles_(tiles),
        segment_(args.segment, static_cast<int>(blockIdx.x)),
        batch_(segment_.lane / args.segment.heads),
        head_(segment_.lane % args.segment.heads) {}

  __device__ void run() {
    load(0, segment_.first);
    start();
    count_nudges<C>(settings(), segment_.first, args_.segment.tokens, chunk().before[0],
                    chunk().after[0]);
    wait_for_groups<0>();
    __syncthreads();
    int parity = 0;
    for (int first = segment_.first; first < segment_.end; first += C, parity ^= 1) {
      step(first, parity);
    }
    __syncthreads();
    write(Team::block(), segment_.first + (segment_.end - segment_.first - 1) / C * C, parity ^ 1);
    if (args_.ends != nullptr) write_end();
    if (threadIdx.x == 0 && args_.low_pivots != nullptr && low_pivots_ > 0) {
      atomicAdd(args_.low_pivots, low_pivots_);
    }
  }

 private:
  using Shape = ChunkShape<D>;
  using Steps = ChunkSteps<D>;
  static constexpr int C = Shape::kTokens;

  __device__ ChunkTiles<D>& chunk() { return tiles_.chunk; }
  __device__ const PenaltySettings& settings() const { return args_.segment.settings; }

  __device__ void load(int parity, int first) {
    const TokenSource& u = args_.segment.u;
    load_tokens<C, D, Shape::kAlong>(chunk().u[parity], u, u.view.lane(batch_, head_), first,
                                     segment_.end);
    load_tokens<C, D, Shape::kAlong>(tiles_.k[parity], args_.k, args_.k.view.lane(batch_, head_),
                                     first, segment_.end);
    close_group();
  }

  /// A at the segment's entry.
  __device__ void start() {
    const Index matrix = static_cast<Index>(segment_.lane) * args_.segment.segments;
    const float* entry = args_.entries + (matrix + segment_.index) * D * D;
    for (int i = static_cast<int>(threadIdx.x); i < D * D; i += Shape::kThreads) {
      const int row = i / D;
      const float diagonal = row == i % D ? settings().inverse_lambda : 0.0F;
      tiles_.matrix[row * Shape::kAlong + i % D] = segment_.index == 0 ? diagonal : entry[i];
    }
  }

  /// A at the segment's end.
  __device__ void write_end() {
    const Index matrix = static_cast<Index>(segment_.lane) * args_.segment.segments;
    float* end = args_.ends + (matrix + segment_.index) * D * D;
    for (int i = static_cast<int>(threadIdx.x); i < D * D; i += Shape::kThreads) {
      end[i] = tiles_.matrix[i / D * Shape::kAlong + i % D];
    }
  }

  __device__ void step(int first, int parity) {
    const Team block = Team::block();
    // Whether step 4 needs no product.
    const bool along_w = args_.gain || (args_.u_scale > 0.0F &&
                                        min(first + C, segment_.end) <= settings().nudged_tokens);
    Steps::multiply_directions(block, tiles_.matrix, chunk(), parity);
    __syncthreads();
    if (first + C < segment_.end) load(parity ^ 1, first + C);
    Steps::multiply_gram(block, chunk(), parity);
    if (!along_w) multiply_keys(Steps::beside_gram(block), parity, 0, Steps::kFirstTiles);
    __syncthreads();
    if (block.rank == 0) {
      Steps::factorise_gram(chunk(), settings().stab_eps, parity);
    } else {
      const Team beside = {block.rank - 1, block.size - 1};
      if (!along_w) multiply_keys(beside, parity, Steps::kFirstTiles, Steps::kTiles);
      if (first > segment_.first) write(beside, first - C, parity ^ 1);
    }
    __syncthreads();
    const bool floored = look_at_pivots(parity) && !args_.gain;
    if (along_w && floored) multiply_keys(block, parity, 0, Steps::kTiles);
    for (int strip = block.rank; strip < D / 16; strip += block.size) {
      Steps::template divide<Shape::kAcross>(chunk(), chunk().w, chunk().z, 16 * strip);
    }
    __syncthreads();
    if (first + C < segment_.end || args_.ends != nullptr) {
      Steps::update(block, tiles_.matrix, chunk(), chunk().after[parity][C - 1]);
    }
    if (first + C < segment_.end) {
      count_nudges<C>(settings(), first + C, args_.segment.tokens, chunk().before[parity ^ 1],
                      chunk().after[parity ^ 1]);
    }
    if (!along_w || floored) multiply_keys_along(block, parity);
    wait_for_groups<0>();
    __syncthreads();
    if (along_w && !floored) {
      scale_directions(parity);
    } else {
      find_directions(block, parity);
    }
  }

  /// Counts the chunk's low pivots; whether any is at its floor.
  __device__ bool look_at_pivots(int parity) {
    bool floored = false;
    for (int t = static_cast<int>(threadIdx.x) % 32; t < C; t += 32) {
      const float delta = chunk().pivots[parity][t];
      floored = floored || delta < settings().stab_eps;
      low_pivots_ += __popc(__ballot_sync(0xFFFFFFFFU, !(delta >= kLeastPivot)));
    }
    return __any_sync(0xFFFFFFFFU, floored) != 0;
  }

  /// 4: A k
  __device__ void multiply_keys(Team team, int parity, int first, int end) {
    Steps::template multiply_symmetric<kGrade>(team, tiles_.k[parity], tiles_.matrix,
                                               tiles_.b[parity], first, end);
  }

  /// 4: triu(Z^T k), transposed, in the place of the factor.
  __device__ void multiply_keys_along(Team team, int parity) {
    const Team reversed = {team.size - 1 - team.rank, team.size};
    for_lower_tiles<Steps::kRows>(reversed, [&](int row, int column) {
      const Along<Shape::kAcross> z = {chunk().z + 16 * column * Shape::kAcross};
      tile_product<kGrade>(Steps::along(tiles_.k[parity], 16 * row), z, {0, D})
          .each_pair(16 * row, 16 * column, [&](int t, int s, float x, float y) {
            Steps::template put<Shape::kGram>(chunk().gram, t, s, s <= t ? x : 0.0F,
                                              s + 1 <= t ? y : 0.0F);
          });
    });
  }

  /// 4, first form
  __device__ void find_directions(Team team, int parity) {
    const float* after = chunk().after[parity];
    for_tiles<Steps::kRows, Steps::kColumns>(team, [&](int row, int column) {
      const Along<Shape::kGram> along_keys = {chunk().gram + 16 * row * Shape::kGram};
      tile_product<kGrade>(along_keys, Steps::across(chunk().z, 16 * column), {0, 16 * (row + 1)})
          .each_pair(16 * row, 16 * column, [&](int t, int i, float x, float y) {
            const int at = t * Shape::kAlong + i;
            float2& b = *reinterpret_cast<float2*>(tiles_.b[parity] + at);
            const float2 k = *reinterpret_cast<const float2*>(tiles_.k[parity] + at);
            b = make_float2(fmaf(after[t], k.x, b.x - x), fmaf(after[t], k.y, b.y - y));
          });
    });
  }

  /// 4, second form, or the gain
  __device__ void scale_directions(int parity) {
    for (int at = static_cast<int>(threadIdx.x); at < C * D; at += Shape::kThreads) {
      const int t = at / D;
      const int i = at % D;
      const float inverse = inverse_root(at_least(chunk().pivots[parity][t], settings().stab_eps));
      const float scale = args_.gain ? inverse : inverse / args_.u_scale;
      const float late = args_.gain ? 0.0F : chunk().after[parity][t] - chunk().before[parity][t];
      tiles_.b[parity][t * Shape::kAlong + i] = fmaf(late, tiles_.k[parity][t * Shape::kAlong + i],
                                                     scale * chunk().z[t * Shape::kAcross + i]);
    }
  }

  /// What the chunk's tokens leave behind, a warp a token.
  __device__ void write(Team team, int first, int parity) {
    constexpr int kNumbers = (D + 31) / 32;  // of a thread
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int count = min(C, segment_.end - first);
    const int width = args_.k.width;
#pragma unroll 2
    for (int t = team.rank; t < count; t += team.size) {
      const Index token = first + t;
      float b[kNumbers], squares = 0.0F;
#pragma unroll
      for (int n = 0; n < kNumbers; ++n) {
        const int i = lane + 32 * n;
        b[n] = i < D ? tiles_.b[parity][t * Shape::kAlong + i] : 0.0F;
        squares = fmaf(b[n], b[n], squares);
      }
      const float norm = sqrtf(group_sum<32>(squares));
      const float scale = settings().unit_write ? 1.0F / at_least(norm, kFloor) : 1.0F;
#pragma unroll
      for (int n = 0; n < kNumbers; ++n) {
        const int i = lane + 32 * n;
        if (i < width) put_direction(token, i, b[n] * scale);
      }
      if (args_.w.view.data != nullptr) {
        float* w = args_.w.view.lane(batch_, head_) + token * args_.w.view.token;
        for (int i = lane; i < width; i += 32) w[i] = chunk().z[t * Shape::kAcross + i];
      }
      const Index scalar =
          (static_cast<Index>(batch_) * args_.segment.tokens + token) * args_.segment.heads + head_;
      if (lane == 0 && args_.b_norm != nullptr) args_.b_norm[scalar] = norm;
      if (lane == 0 && args_.delta != nullptr) args_.delta[scalar] = chunk().pivots[parity][t];
    }
  }

  __device__ void put_direction(Index token, int channel, float value) {
    if (args_.a_bf16.data == nullptr) {
      args_.a.view.lane(batch_, head_)[token * args_.a.view.token + channel] = value;
    } else {
      reinterpret_cast<__nv_bfloat16*>(args_.a_bf16.lane(
          batch_, head_))[token * args_.a_bf16.token + channel] = __float2bfloat16_rn(value);
    }
  }

  const ForwardArgs& args_;
  ForwardTiles<D>& tiles_;
  Segment segment_;
  int batch_, head_;
  int low_pivots_ = 0;
};

template <int D, Grade kGrade>
__global__ void __launch_bounds__(ChunkShape<D>::kThreads, ChunkShape<D>::kBlocks)
    penalty_chunks_kernel(const ForwardArgs args) {
  extern __shared__ float4 memory[];
  Forward<D, kGrade>(args, *reinterpret_cast<ForwardTiles<D>*>(memory)).run();
}

template <int D, Grade kGrade>
void launch(cudaStream_t stream, const ForwardArgs& args, Index lanes) {
  constexpr int kBytes = sizeof(ForwardTiles<D>);
  const auto kernel = penalty_chunks_kernel<D, kGrade>;
  VLA_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(args.segment.segments), static_cast<unsigned>(lanes));
  penalty_chunks_kernel<D, kGrade><<<grid, ChunkShape<D>::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("penalty_chunks_kernel");
}

}  // namespace

template <int D>
void penalty_forward_chunked(cudaStream_t stream, const PenaltyForward& args,
                             const PenaltyChunks& chunks) {
  const HeadDims& dims = args.dims;
  const SegmentArgs segment = cut_segments(dims, args.settings, chunks.segments, args.u);
  if (segment.segments > 1) find_segment_entries<D>(stream, dims, segment, chunks.workspace);
  const ForwardArgs kernel_args{.segment = segment,
                                .k = {dims, args.k},
                                .a = {dims, args.a},
                                .w = {dims, args.w},
                                .a_bf16 = chunks.a,
                                .b_norm = args.b_norm,
                                .delta = args.delta,
                                .entries = chunks.workspace,
                                .ends = chunks.ends,
                                .u_scale = chunks.u_scale,
                                .gain = chunks.gain,
                                .low_pivots = chunks.low_pivots};
  if (chunks.grade == Grade::tf32) {
    launch<D, Grade::tf32>(stream, kernel_args, dims.lanes());
  } else {
    launch<D, Grade::float32>(stream, kernel_args, dims.lanes());
  }
}
template void penalty_forward_chunked<VLA_HEAD_SIZE>(cudaStream_t, const PenaltyForward&,
                                                     const PenaltyChunks&);

}  // namespace vla_bench::mixers::cuda
