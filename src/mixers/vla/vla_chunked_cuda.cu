// The chunks of vla_chunked_cuda.h, of one head size.
#include <cuda_bf16.h>

#include "core/cuda/check.h"
#include "mixers/vla/vla_row_chunks.cuh"
#include "mixers/vla/vla_rule.h"
#include "mixers/vla/vla_segments_cuda.h"
#include "ops/cuda/partial_barrier.cuh"

namespace vla_bench::mixers::cuda {
namespace {

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
  static constexpr int C = RowChunkTiles<D>::C;
  static constexpr int kOfK = D + 8;
  static constexpr int kAlongKeys = C + 8;
  RowChunkTiles<D> chunk;
  alignas(16) float k[2][C * kOfK];
  alignas(16) float along_keys[C * kAlongKeys];  // triu(Z^T k), transposed
  float squares[D / 16][C];                      // of b, by row warp
  ops::cuda::PartialBarrier row_warps;
};

/// What a chunk writes out is found while the next one is under way: its Z^T k by the factor warp
/// beside step 1, the rest by the row warps beside 3.
template <int D, Grade kGrade>
class Forward {
 public:
  using Chunk = RowChunk<D>;

  __device__ Forward(const ForwardArgs& args, ForwardTiles<D>& tiles)
      : args_(args),
        tiles_(tiles),
        segment_(args.segment, static_cast<int>(blockIdx.x)),
        batch_(segment_.lane / args.segment.heads),
        head_(segment_.lane % args.segment.heads),
        warp_(__shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 32, 0)),
        matrix_(16 * warp_) {}

  __device__ void run() {
    if (threadIdx.x == 0) tiles_.row_warps.start(Chunk::kRowThreads);
    if (has_rows()) {
      start();
      load_directions(segment_.first);
      load_keys(0, segment_.first);
      Chunk::split_directions(chunk());
      load_directions(segment_.first + C);
      count_nudges<C>(settings(), segment_.first, args_.segment.tokens, chunk().before[0],
                      chunk().after[0]);
    }
    __syncthreads();
    int parity = 0;
    for (int first = segment_.first; first < segment_.end; first += C, parity ^= 1) {
      step(first, parity);
    }
    write_last(segment_.first + (segment_.end - segment_.first - 1) / C * C, parity ^ 1);
    if (args_.ends != nullptr && has_rows()) matrix_.store(end());
    if (threadIdx.x == 0 && args_.low_pivots != nullptr && low_pivots_ > 0) {
      atomicAdd(args_.low_pivots, low_pivots_);
    }
  }

 private:
  using Tiles = ForwardTiles<D>;
  static constexpr int C = Chunk::C;

  __device__ RowChunkTiles<D>& chunk() { return tiles_.chunk; }
  __device__ const PenaltySettings& settings() const { return args_.segment.settings; }
  __device__ bool has_rows() const { return warp_ < Chunk::kRowWarps; }
  __device__ PlainRows<Tiles::kOfK> keys(int parity) const { return {tiles_.k[parity]}; }

  __device__ void load_directions(int first) {
    const TokenSource& u = args_.segment.u;
    Chunk::load_directions(chunk(), u, u.view.lane(batch_, head_), first, segment_.end);
  }
  __device__ void load_keys(int parity, int first) {
    load_tokens<C, D, Tiles::kOfK>(tiles_.k[parity], args_.k, args_.k.view.lane(batch_, head_),
                                   first, segment_.end, Chunk::kRowThreads);
    close_group();
  }

  __device__ Index of_segment() const {
    const Index lane = static_cast<Index>(segment_.lane) * args_.segment.segments;
    return (lane + segment_.index) * D * D;
  }
  __device__ float* end() const { return args_.ends + of_segment(); }
  /// A at the segment's entry.
  __device__ void start() {
    if (segment_.index == 0) {
      matrix_.set_identity(settings().inverse_lambda);
    } else {
      matrix_.load(args_.entries + of_segment());
    }
  }

  __device__ void step(int first, int parity) {
    const bool has_previous = first > segment_.first;
    const bool has_next = first + C < segment_.end;
    // Whether step 4 needs no product.
    const bool along_w = args_.gain || (args_.u_scale > 0.0F &&
                                        min(first + C, segment_.end) <= settings().nudged_tokens);
    RowTiles<4> w;
    if (has_rows()) {
      w = Chunk::multiply_directions(matrix_, 16 * warp_, chunk(), parity);
      wait_for_groups<0>();  // this chunk's keys
    } else if (has_previous && !along_) {
      multiply_keys_along(parity ^ 1);
    }
    __syncthreads();
    Chunk::multiply_gram(warp_, chunk());
    __syncthreads();
    if (has_rows()) {
      if (has_previous) write(first - C, parity ^ 1);
      if (!along_w) multiply_keys(parity);
      if (has_next) {
        Chunk::split_directions(chunk());
        load_directions(first + 2 * C);
        load_keys(parity ^ 1, first + C);
        count_nudges<C>(settings(), first + C, args_.segment.tokens, chunk().before[parity ^ 1],
                        chunk().after[parity ^ 1]);
      }
    } else {
      factorise<2, RowChunkTiles<D>::kGram, false>(chunk().gram, settings().stab_eps,
                                                   chunk().pivots[parity]);
    }
    __syncthreads();
    const bool floored = look_at_pivots(parity) && !args_.gain;
    along_ = along_w && !floored;
    if (has_rows()) {
      if (along_w && floored) multiply_keys(parity);
      Chunk::divide(w, chunk());
      Chunk::put(w, 16 * warp_, chunk().split_z());
      if (along_) scale_directions(w, parity);
      if (args_.w.view.data != nullptr) write_z(w, first);
    }
    __syncthreads();
    if (has_rows() && (has_next || args_.ends != nullptr)) {
      matrix_.subtract_product(w, chunk().split_z());
      const float nudges = chunk().after[parity][C - 1];
      if (nudges > 0.0F) matrix_.add_to_diagonal(nudges);
    }
  }

  /// Counts the chunk's low pivots; whether any is at its floor.
  __device__ bool look_at_pivots(int parity) {
    const float delta = chunk().pivots[parity][threadIdx.x % C];
    low_pivots_ += __popc(__ballot_sync(0xFFFFFFFFU, !(delta >= kLeastPivot)));
    return __any_sync(0xFFFFFFFFU, delta < settings().stab_eps) != 0;
  }

  /// 4: A k
  __device__ void multiply_keys(int parity) {
    b_ = matrix_.template multiply<kGrade>(
        [&](int token, int step) { return keys(parity).template right<kGrade>(token, step); });
  }

  /// 4: triu(Z^T k), transposed.
  __device__ void multiply_keys_along(int parity) {
    const SplitRows<C> z = chunk().split_z();
#pragma unroll 1
    for (int job = 0; job < 3; ++job) {
      const int row = job == 0 ? 0 : 16;
      const int column = job == 2 ? 16 : 0;
      row_product<kGrade, 2, D / 8>(
          [&](int step) { return keys(parity).template left<kGrade>(row, step); },
          [&](int n, int step) { return z.template right_across<kGrade>(step, column, n); })
          .each(row, [&](int t, int s, float value) {
            s += column;
            tiles_.along_keys[t * Tiles::kAlongKeys + s] = s <= t ? value : 0.0F;
          });
    }
  }

  /// The rest of 4, first form, and the squares of b.
  __device__ void find_directions(int parity) {
    if (!along_) {
      const SplitRows<C> z = chunk().split_z();
      const PlainRows<Tiles::kAlongKeys> along_keys{tiles_.along_keys};
      const float* after = chunk().after[parity];
      b_.each(16 * warp_, [&](int i, int t, float& value) {
        value = fmaf(after[t], tiles_.k[parity][t * Tiles::kOfK + i], value);
      });
#pragma unroll
      for (int group = 0; group < 4; group += 2) {
        const auto taken = row_product<kGrade, 2, 4>(
            [&](int step) { return z.template left<kGrade>(16 * warp_, step); },
            [&](int n, int step) {
              return along_keys.template right<kGrade>(8 * (group + n), step);
            },
            [&](int n, int step) { return step <= group + n; });
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) b_.values[group + n][e] -= taken.values[n][e];
        }
      }
    }
    const TilePlace at;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float x = b_.values[n][e], y = b_.values[n][e + 2];
        float sum = fmaf(x, x, y * y);
        sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 4);
        sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 8);
        sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 16);
        if (at.row == 0) tiles_.squares[warp_][8 * n + at.column + e] = sum;
      }
    }
  }

  /// 4, second form, or the gain
  __device__ void scale_directions(const RowTiles<4>& z, int parity) {
    const float* pivots = chunk().pivots[parity];
    b_ = z;
    b_.each(16 * warp_, [&](int i, int t, float& value) {
      const float inverse = inverse_root(at_least(pivots[t], settings().stab_eps));
      const float late = args_.gain ? 0.0F : chunk().after[parity][t] - chunk().before[parity][t];
      value *= args_.gain ? inverse : inverse / args_.u_scale;
      if (late > 0.0F) value = fmaf(late, tiles_.k[parity][t * Tiles::kOfK + i], value);
    });
  }

  __device__ void write_z(RowTiles<4>& z, int first) {
    float* lane = args_.w.view.lane(batch_, head_);
    z.each(16 * warp_, [&](int i, int t, float value) {
      if (first + t < segment_.end && i < args_.k.width) {
        lane[(first + t) * args_.w.view.token + i] = value;
      }
    });
  }

  /// What the chunk's tokens leave behind, by the row warps.
  __device__ void write(int first, int parity) {
    find_directions(parity);
    tiles_.row_warps.sync(phase_);
    phase_ ^= 1U;
    const int own = static_cast<int>(threadIdx.x) % 32;  // token
    float squares = 0.0F;
#pragma unroll
    for (int n = 0; n < Chunk::kRowWarps; ++n) squares += tiles_.squares[n][own];
    const float norm = sqrtf(squares);
    const float own_scale =
        settings().unit_write ? 1.0F / at_least(norm, static_cast<float>(kUnitFloor)) : 1.0F;
    if (warp_ == 0 && first + own < segment_.end) {
      const Index scalar =
          (static_cast<Index>(batch_) * args_.segment.tokens + first + own) * args_.segment.heads +
          head_;
      if (args_.b_norm != nullptr) args_.b_norm[scalar] = norm;
      if (args_.delta != nullptr) args_.delta[scalar] = chunk().pivots[parity][own];
    }
    if (args_.a_bf16.data == nullptr) {
      put_directions(args_.a.view.lane(batch_, head_), args_.a.view.token, first, own_scale,
                     [](float x) { return x; });
    } else {
      put_directions(reinterpret_cast<__nv_bfloat16*>(args_.a_bf16.lane(batch_, head_)),
                     args_.a_bf16.token, first, own_scale,
                     [](float x) { return __float2bfloat16_rn(x); });
    }
  }
  template <class T, class Round>
  __device__ void put_directions(T* lane, Index stride, int first, float own_scale,
                                 const Round& round) {
    const TilePlace at;
    const int channel = 16 * warp_ + at.row;
    const bool has_upper = channel < args_.k.width, has_lower = channel + 8 < args_.k.width;
    T* token = lane + (first + at.column) * stride + channel;
#pragma unroll
    for (int n = 0; n < 4; ++n, token += 8 * stride) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int t = 8 * n + at.column + e;
        const float scale = __shfl_sync(0xFFFFFFFFU, own_scale, t);
        const bool exists = first + t < segment_.end;
        if (exists && has_upper) token[e * stride] = round(scale * b_.values[n][e]);
        if (exists && has_lower) token[e * stride + 8] = round(scale * b_.values[n][e + 2]);
      }
    }
  }
  /// The last chunk's, behind which there is none.
  __device__ void write_last(int first, int parity) {
    if (!has_rows() && !along_) multiply_keys_along(parity);
    __syncthreads();
    if (has_rows()) write(first, parity);
  }

  const ForwardArgs& args_;
  ForwardTiles<D>& tiles_;
  Segment segment_;
  int batch_, head_;
  int warp_;
  MatrixRows<D> matrix_;
  RowTiles<4> b_;       // of the chunk before
  bool along_ = false;  // whether that has b from Z alone
  int low_pivots_ = 0;
  unsigned phase_ = 0;  // of the row warps' barrier
};

template <int D, Grade kGrade>
__global__ void __launch_bounds__(RowChunk<D>::kThreads, D < 128 ? 2 : 1)
    penalty_chunks_kernel(const ForwardArgs args) {
  extern __shared__ float4 memory[];
  Forward<D, kGrade>(args, *reinterpret_cast<ForwardTiles<D>*>(memory)).run();
}

template <int D, Grade kGrade>
void launch(cudaStream_t stream, const ForwardArgs& args, Index lanes) {
  constexpr int kBytes = sizeof(ForwardTiles<D>);
  const auto kernel = penalty_chunks_kernel<D, kGrade>;
  allow_shared_memory(reinterpret_cast<const void*>(kernel), kBytes);
  const dim3 grid(static_cast<unsigned>(args.segment.segments), static_cast<unsigned>(lanes));
  penalty_chunks_kernel<D, kGrade><<<grid, RowChunk<D>::kThreads, kBytes, stream>>>(args);
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
#define VLA_INSTANTIATE(d)                                                      \
  template void penalty_forward_chunked<d>(cudaStream_t, const PenaltyForward&, \
                                           const PenaltyChunks&);
VLA_FOR_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
