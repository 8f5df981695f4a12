// A pass of chunk_passes.h as a compile-time rule, its shared memory, its segments, and how a
// chunk's tokens come in. Places of a chunk are in the order in which the pass visits its tokens:
// against time the last token comes first, and every matrix is lower triangular there as well.
#pragma once

#include "core/cuda/warp.h"
#include "mixers/recurrence/chunk_passes.h"
#include "mixers/recurrence/chunk_rows.cuh"
#include "mixers/recurrence/pipeline.cuh"
#include "ops/cuda/partial_barrier.cuh"

namespace vla_bench::mixers::cuda {

/// Buffers of `bytes` beside `others` in the shared memory of a block, `blocks` of them on a
/// multiprocessor; at most eight.
constexpr int most_buffers(int blocks, std::size_t bytes, std::size_t others) {
  const std::size_t memory = 228 * 1024 / static_cast<std::size_t>(blocks) - 1024 - 64;
  const std::size_t room = (memory - others) / bytes;  // 64: what alignment takes
  return static_cast<int>(room < 8 ? room : 8);
}

/// What a kernel does with a chunk. One that puts nothing out finds what its segment does to the M
/// that enters it: M from 0, and where that depends on M, Phi.
template <int D_, Grade kGrade_, Order kOrder_, AlongR kAlongR_, Decay kDecay_, bool kNormalises_,
          bool kPuts_>
struct ChunkRule {
  static constexpr int D = D_;
  static constexpr Grade kGrade = kGrade_;
  static constexpr bool kInTime = kOrder_ == Order::in_time;
  static constexpr bool kHasR = kAlongR_ != AlongR::nothing;
  static constexpr bool kSolves = kAlongR_ == AlongR::residual;
  static constexpr bool kDecays = kDecay_ == Decay::head;
  static constexpr bool kChannelsDecay = kDecay_ == Decay::columns;
  static constexpr bool kRowsDecay = kDecay_ == Decay::rows;
  static constexpr bool kNormalises = kNormalises_;
  static constexpr bool kPuts = kPuts_;
  static constexpr bool kHasA = kInTime || kPuts || kSolves;
  static constexpr bool kHasQ = !kInTime || kPuts;
  static constexpr bool kHasW = !kInTime && kAlongR_ == AlongR::known;
  static constexpr bool kHasP = kInTime ? kPuts : kHasA;
  static constexpr bool kScales = !kInTime || kPuts;
  /// Five rows a token do not fit into shared memory at C = 32 and d = 128; where channels decay
  /// apart, what stands inside a pair of tokens is no product of matrices (chunk_channels.cuh,
  /// chunk_row_decays.cuh).
  static constexpr int C =
      kChannelsDecay || kRowsDecay || (kHasW && D == 128) ? 16 : static_cast<int>(kChunkTokens);
  /// An element has Phi too where that depends on M: warps of its own, at d = 128 another block.
  static constexpr bool kHasMap = !kPuts && kSolves;
  static constexpr int kMapWarps = kHasMap && D < 128 ? D / 16 : 0;
  static constexpr int kStateWarps = D / 16 + kMapWarps;
  /// Eight give each block of X and P a warp of its own; more threads leave too few registers.
  static constexpr int kGramWarps =
      kPuts && kHasR && !kRowsDecay && (D == 32 || D == 64 || kChannelsDecay) ? 8 : 4;
  static constexpr int kThreads = (kStateWarps + kGramWarps) * kWarp;
  static constexpr int kLoadThreads = kGramWarps * kWarp;
  /// Blocks of a multiprocessor: two hide each other's latency where registers and memory allow.
  static constexpr int kBlocks = blocks_of_multiprocessor(D, kHasR);
  static constexpr int kSlot = (D + 1) * D;

  using T = Stored<kGrade>;
  using Args = ChunkedArgsOf<T>;
  using Tile = T[C * kRowStride<kGrade, D>];
  using Square = float[C * kRowWords<C>];
  /// Gamma of a chunk in chunks that are at work.
  struct Decays {
    float before[C];   // what token t reads of M at entry: Gamma(0, t - 1), or Gamma(t, C)
    float through[C];  // Gamma(0, t)
    float after[C];    // what is left at the exit: of a write Gamma(t, C), or Gamma(0, t - 1)
    float whole;       // Gamma(0, C)
    float padding[3];
  };
  struct Sums {
    float z[D];               // before the chunk
    float along[C];           // z . q_t
    float inside[C / 16][C];  // sums of P over blocks of 16 tokens
  };
  struct Nothing {};
  template <bool kExists, class T>
  using If = std::conditional_t<kExists, T, Nothing>;
  struct Rows {
    alignas(16) Tile v;
    alignas(16) If<kHasA, Tile> a;
    alignas(16) If<kHasR, Tile> r;
    alignas(16) If<kHasQ, Tile> q;
    alignas(16) If<kHasW, Tile> w;
    alignas(16) If<kChannelsDecay || kRowsDecay, Tile> decays;
    If<kDecays, float[C]> decay;
    If<kScales, float[C]> scale;
  };
  struct Products {
    alignas(16) If<kHasR, Square> x;
    alignas(16) If<kHasP, Square> p;
    alignas(16) If<kDecays, Decays> decays;
    alignas(16) If<kChannelsDecay, float[D]> left;  // Gamma(0, C) of each channel
    alignas(16) If<kNormalises, Sums> sums;
  };
  using Logs = If<kDecays, float2[kGramWarps][C + 1]>;
  /// Of a chunk's rows, at most eight: as many as fit, so that copies for several chunks are under
  /// way.
  static constexpr int kBuffers =
      most_buffers(kBlocks, sizeof(Rows), 2 * sizeof(Products) + sizeof(Logs));
  struct Shared {
    Rows rows[kBuffers];
    Products products[2];
    alignas(8) Logs logs;
    // Of the warps of Gram matrices.
    If<kChannelsDecay, ops::cuda::PartialBarrier> gram_barrier;
  };

  /// The place of a chunk's token, and the token at a place.
  __device__ static constexpr int place(int token) { return kInTime ? token : C - 1 - token; }
};

/// The tokens of a block. Segments and chunks count in the order in which the pass visits them.
template <class Rule>
struct Segment {
  int lane, index, batch, head;
  int first, end;  // tokens
  int chunks;

  __device__ explicit Segment(const ChunkedSegments& args)
      : lane(static_cast<int>(blockIdx.x) / segments_at_work(args)),
        index(static_cast<int>(blockIdx.x) % segments_at_work(args)),
        batch(lane / args.heads),
        head(lane % args.heads),
        first((Rule::kInTime ? index : args.segments - 1 - index) * args.segment_tokens),
        end(min(first + args.segment_tokens, args.tokens)),
        chunks((end - first + Rule::C - 1) / Rule::C) {}

  /// What the last segment does to its M is of no interest.
  __device__ static int segments_at_work(const ChunkedSegments& args) {
    return Rule::kPuts ? args.segments : args.segments - 1;
  }
  __device__ int first_of(int chunk) const {
    return first + (Rule::kInTime ? chunk : chunks - 1 - chunk) * Rule::C;
  }
  __device__ int tokens_of(int chunk) const { return min(Rule::C, end - first_of(chunk)); }
  /// Of the lane's kChunkTokens tokens that the chunk begins.
  __device__ Index chunk_slot(const ChunkedSegments& args, int chunk) const {
    return lane * chunks_of_lane(args.tokens) + first_of(chunk) / kChunkTokens;
  }
  __device__ Index slot(const ChunkedSegments& args) const {
    return static_cast<Index>(lane) * args.segments + index;
  }
};

/// Runs use(offset in a tile, token, channel) for the 16 bytes at a time that a thread copies.
template <class Rule, class Use>
__device__ inline void each_copy_of_rows(int thread, const Use& use) {
  constexpr int kChannels = 16 / sizeof(typename Rule::T);
  constexpr int kAcross = Rule::D / kChannels;
  constexpr int kAtOnce = Rule::kLoadThreads / kAcross;  // tokens
  constexpr int kStride = kRowStride<Rule::kGrade, Rule::D>;
  static_assert(Rule::kLoadThreads % kAcross == 0);
  static_assert(Rule::C % kAtOnce == 0 || kAtOnce % Rule::C == 0);
  const int channel = thread % kAcross * kChannels;
  const int first = thread / kAcross;
  if (kAtOnce > Rule::C && first >= Rule::C) return;
  const int offset = Rule::place(first) * kStride + channel;
  constexpr int kStep = (Rule::kInTime ? kAtOnce : -kAtOnce) * kStride;
#pragma unroll
  for (int step = 0; step == 0 || step < Rule::C / kAtOnce; ++step) {
    use(offset + step * kStep, first + step * kAtOnce, channel);
  }
}

/// Copies `count` tokens of D channels, `thread` being one of kLoadThreads; what does not exist
/// becomes 0.
template <class Rule>
__device__ inline void load_rows(typename Rule::T* tile,
                                 const TokenArray<const typename Rule::T>& source, int batch,
                                 int head, Index first, int count, int thread) {
  constexpr int D = Rule::D;
  const Index stride = source.view.token;
  const auto* data = source.view.lane(batch, head) + first * stride;
  if (Rule::kGrade == Grade::bf16 || source.wide) {
    each_copy_of_rows<Rule>(thread, [&](int offset, int token, int channel) {
      const bool valid = channel < source.width && token < count;
      // A copy of nothing still names an address: one that exists.
      copy_async_16(tile + offset, valid ? data + token * stride + channel : source.view.data,
                    valid);
    });
    return;
  }
  if constexpr (Rule::kGrade != Grade::bf16) {
#pragma unroll 1
    for (int i = thread; i < Rule::C * D; i += Rule::kLoadThreads) {
      const int token = i / D;
      const int channel = i % D;
      const bool valid = token < count && channel < source.width;
      const float* from = valid ? data + token * stride + channel : source.view.data;
      copy_async_4(tile + Rule::place(token) * kRowWords<D> + channel, from, valid);
    }
  }
}

/// Rounds what the thread has copied of a tile.
template <class Rule>
__device__ inline void prepare_rows(float* tile, bool wide, int thread) {
  constexpr int D = Rule::D;
  if (wide) {
    each_copy_of_rows<Rule>(thread, [&](int offset, int, int) {
      float4& x = *reinterpret_cast<float4*>(tile + offset);
      x = prepared<Rule::kGrade>(x);
    });
    return;
  }
#pragma unroll 1
  for (int i = thread; i < Rule::C * D; i += Rule::kLoadThreads) {
    float& x = tile[Rule::place(i / D) * kRowWords<D> + i % D];
    x = prepared<Rule::kGrade>(x);
  }
}

/// A number a token; without a source it is 1.
template <class Rule>
__device__ inline void load_numbers(float* numbers, const TokenSource& source, int batch, int head,
                                    Index first, int count, int thread) {
  if (thread >= Rule::C) return;
  float* to = numbers + Rule::place(thread);
  if (source.view.data == nullptr) {
    *to = 1.0F;
    return;
  }
  const bool valid = thread < count;
  const float* from = source.view.lane(batch, head);
  copy_async_4(to, valid ? from + (first + thread) * source.view.token : from, valid);
}

/// Asks for a chunk's rows, by the warps of Gram matrices, which have less to do.
template <class Rule>
__device__ inline void load_chunk(const typename Rule::Args& args, const Segment<Rule>& segment,
                                  int chunk, typename Rule::Rows& rows) {
  const int thread = static_cast<int>(threadIdx.x) - Rule::kStateWarps * kWarp;
  if (thread < 0 || chunk >= segment.chunks) return;
  const Index first = segment.first_of(chunk);
  const int count = segment.tokens_of(chunk);
  const auto load = [&](typename Rule::T* tile, const auto& source) {
    load_rows<Rule>(tile, source, segment.batch, segment.head, first, count, thread);
  };
  const auto load_scalars = [&](float* numbers, const TokenSource& source) {
    load_numbers<Rule>(numbers, source, segment.batch, segment.head, first, count, thread);
  };
  if constexpr (Rule::kHasA) load(rows.a, args.a);
  if (Rule::kMapWarps > 0 || blockIdx.y == 0) {
    load(rows.v, args.v);
  }
  if constexpr (Rule::kHasR) load(rows.r, args.r);
  if constexpr (Rule::kHasQ) load(rows.q, args.q);
  if constexpr (Rule::kHasW) load(rows.w, args.w);
  if constexpr (Rule::kScales) load_scalars(rows.scale, args.scale);
  if constexpr (Rule::kDecays) load_scalars(rows.decay, args.decay);
  if constexpr (Rule::kChannelsDecay || Rule::kRowsDecay) load(rows.decays, args.decay);
}

/// Rounds what the thread has copied of a chunk, where the grade is TF32. v and w are no operands
/// in shared memory.
template <class Rule>
__device__ inline void prepare_operands(const typename Rule::Args& args,
                                        typename Rule::Rows& rows) {
  const int thread = static_cast<int>(threadIdx.x) - Rule::kStateWarps * kWarp;
  if (thread < 0) return;
  if constexpr (Rule::kGrade == Grade::tf32 && !Rule::kChannelsDecay) {
    if constexpr (Rule::kHasA) prepare_rows<Rule>(rows.a, args.a.wide, thread);
    if constexpr (Rule::kHasR) prepare_rows<Rule>(rows.r, args.r.wide, thread);
    if constexpr (Rule::kHasQ) prepare_rows<Rule>(rows.q, args.q.wide, thread);
  }
}

}  // namespace vla_bench::mixers::cuda
