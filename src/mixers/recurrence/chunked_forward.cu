// chunked_cuda.h; numbers are the steps of chunked.h.
#include <algorithm>

#include "core/cuda/check.h"
#include "mixers/recurrence/chunk_rows.cuh"
#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/recurrence/lines.cuh"

namespace vla_bench::mixers::cuda {
namespace {

constexpr int kWarp = 32;

struct ChunkedArgs {
  int tokens, heads;
  int segments, segment_tokens;
  TokenSource r, a, q, v, decay, scale;
  TokenTarget o, e;
  float* denominator;
  float floor;
  float* states;   // (lanes, segments, (d + 1) d): S, z of each segment, later those behind it
  float* maps;     // (lanes, segments, d, d): Phi
  float* factors;  // (lanes, segments): product of a segment's decays
};

/// Tokens of a chunk; 16 works as well.
template <int D>
inline constexpr int kChunk = kChunkTokens;

/// What a kernel does with a chunk. An element has no reads: S and Phi of its segment.
template <int D_, Grade kGrade_, bool kDecays_, bool kResidual_, bool kNormalises_, bool kReads_>
struct ChunkRule {
  static constexpr int D = D_;
  static constexpr int C = kChunk<D>;
  static constexpr Grade kGrade = kGrade_;
  static constexpr bool kDecays = kDecays_;
  static constexpr bool kResidual = kResidual_;
  static constexpr bool kNormalises = kNormalises_;
  static constexpr bool kReads = kReads_;
  static constexpr int kStateWarps = D / 16;
  /// Eight give each block of X and P a warp of its own; more threads leave too few registers.
  static constexpr int kGramWarps = kResidual && (D == 32 || D == 64) ? 8 : 4;
  static constexpr int kThreads = (kStateWarps + kGramWarps) * kWarp;
  static constexpr int kLoadThreads = kGramWarps * kWarp;
  static constexpr bool kShort = C == 16;
  /// Blocks of a multiprocessor: two hide each other's latency where registers and memory allow.
  static constexpr int kBlocks = D <= 64 && (!kResidual || kShort) ? 2 : 1;
  static constexpr int kBuffers =
      D == 128 || (kBlocks == 2 && !kShort) ? 3 : 4;  // of a chunk's rows
  /// Rows of S, then of Phi, that a warp owns; with one, Phi is another block's.
  static constexpr int kHalves = !kReads && kResidual && D < 128 && !kShort ? 2 : 1;
  static constexpr int kSlot = (D + 1) * D;

  using Tile = float[C * kRowWords<D>];
  using Square = float[C * kRowWords<C>];
  /// Gamma of a chunk in chunks that are at work.
  struct Decays {
    float before[C], through[C], after[C];  // Gamma(0, t - 1), Gamma(0, t), Gamma(s, C)
    float whole;                            // Gamma(0, C)
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
    alignas(16) Tile a, v;
    alignas(16) If<kResidual, Tile> r;
    alignas(16) If<kReads, Tile> q;
    If<kDecays, float[C]> decay;
    If<kReads, float[C]> scale;
  };
  struct Products {
    alignas(16) If<kResidual, Square> x;
    alignas(16) If<kReads, Square> p;
    alignas(16) If<kDecays, Decays> decays;
    alignas(16) If<kNormalises, Sums> sums;
  };
  struct Shared {
    Rows rows[kBuffers];
    Products products[2];
    alignas(8) If<kDecays, float2[kGramWarps][C + 1]> logs;
  };
};

/// The tokens of a block.
template <class Rule>
struct Segment {
  int lane, index, batch, head;
  int first, end;  // tokens
  int chunks;

  __device__ explicit Segment(const ChunkedArgs& args)
      : lane(static_cast<int>(blockIdx.x) / segments_at_work(args)),
        index(static_cast<int>(blockIdx.x) % segments_at_work(args)),
        batch(lane / args.heads),
        head(lane % args.heads),
        first(index * args.segment_tokens),
        end(min(first + args.segment_tokens, args.tokens)),
        chunks((end - first + Rule::C - 1) / Rule::C) {}

  /// What the last segment does to its S is of no interest.
  __device__ static int segments_at_work(const ChunkedArgs& args) {
    return Rule::kReads ? args.segments : args.segments - 1;
  }
  __device__ int tokens_of(int chunk) const { return min(Rule::C, end - first - chunk * Rule::C); }
  __device__ Index slot(const ChunkedArgs& args) const {
    return static_cast<Index>(lane) * args.segments + index;
  }
};

/// Where a channel of a token stands. kTiles: in rows that are multiplied with S.
template <class Rule, bool kTiles>
__device__ inline int word_of(int token, int channel) {
  const int place = kTiles ? place_in_quad<Rule::kGrade>(channel % 4) : channel % 4;
  return token * kRowWords<Rule::D> + channel / 4 * 4 + place;
}

/// Copies `count` tokens of D channels, `thread` being one of kLoadThreads; what does not exist
/// becomes 0.
template <class Rule, bool kTiles>
__device__ inline void load_rows(float* tile, const TokenSource& source, int batch, int head,
                                 Index first, int count, int thread) {
  constexpr int D = Rule::D;
  const Index stride = source.view.token;
  const float* data = source.view.lane(batch, head) + first * stride;
  if (source.wide) {
    constexpr int kAcross = D / 4;
    constexpr int kAtOnce = Rule::kLoadThreads / kAcross;  // tokens
    static_assert(Rule::kLoadThreads % kAcross == 0 && Rule::C % kAtOnce == 0);
    const int channel = thread % kAcross * 4;
    const bool exists = channel < source.width;
    const float* from = data + thread / kAcross * stride + channel;
    float* to = tile + thread / kAcross * kRowWords<D> + channel;
#pragma unroll
    for (int step = 0; step < Rule::C / kAtOnce; ++step) {
      const bool valid = exists && thread / kAcross + step * kAtOnce < count;
      // A copy of nothing still names an address: one that exists.
      copy_async_16(to + step * kAtOnce * kRowWords<D>, valid ? from : source.view.data, valid);
      from += kAtOnce * stride;
    }
    return;
  }
#pragma unroll 1
  for (int i = thread; i < Rule::C * D; i += Rule::kLoadThreads) {
    const int token = i / D;
    const int channel = i % D;
    const bool valid = token < count && channel < source.width;
    const float* from = valid ? data + token * stride + channel : source.view.data;
    copy_async_4(tile + word_of<Rule, kTiles>(token, channel), from, valid);
  }
}

/// Rounds what the thread has copied of a tile. kTiles: rows that are multiplied with S.
template <class Rule, bool kTiles>
__device__ inline void prepare_rows(float* tile, bool wide, int thread) {
  constexpr int D = Rule::D;
  constexpr Grade kGrade = Rule::kGrade;
  if (wide) {
    constexpr int kAcross = D / 4;
    constexpr int kAtOnce = Rule::kLoadThreads / kAcross;
    float* from = tile + thread / kAcross * kRowWords<D> + thread % kAcross * 4;
#pragma unroll
    for (int step = 0; step < Rule::C / kAtOnce; ++step) {
      float4& x = *reinterpret_cast<float4*>(from + step * kAtOnce * kRowWords<D>);
      x = kTiles ? prepared_quad<kGrade>(x)
                 : make_float4(prepared<kGrade>(x.x), prepared<kGrade>(x.y), prepared<kGrade>(x.z),
                               prepared<kGrade>(x.w));
    }
    return;
  }
#pragma unroll 1
  for (int i = thread; i < Rule::C * D; i += Rule::kLoadThreads) {
    float& x = tile[word_of<Rule, kTiles>(i / D, i % D)];
    x = prepared<kGrade>(x);
  }
}

/// A number a token; without a source it is 1.
template <class Rule>
__device__ inline void load_numbers(float* numbers, const TokenSource& source, int batch, int head,
                                    Index first, int count, int thread) {
  if (thread >= Rule::C) return;
  if (source.view.data == nullptr) {
    numbers[thread] = 1.0F;
    return;
  }
  const bool valid = thread < count;
  const float* from = source.view.lane(batch, head);
  copy_async_4(numbers + thread, valid ? from + (first + thread) * source.view.token : from, valid);
}

/// Asks for a chunk's rows, by the warps of Gram matrices, which have less to do.
template <class Rule>
__device__ inline void load_chunk(const ChunkedArgs& args, const Segment<Rule>& segment, int chunk,
                                  typename Rule::Rows& rows) {
  const int thread = static_cast<int>(threadIdx.x) - Rule::kStateWarps * kWarp;
  if (thread < 0 || chunk >= segment.chunks) return;
  const Index first = segment.first + chunk * Rule::C;
  const int count = segment.tokens_of(chunk);
  const auto load = [&](auto tiles, float* tile, const TokenSource& source) {
    load_rows<Rule, tiles>(tile, source, segment.batch, segment.head, first, count, thread);
  };
  constexpr std::true_type kTiles;
  const auto load_scalars = [&](float* numbers, const TokenSource& source) {
    load_numbers<Rule>(numbers, source, segment.batch, segment.head, first, count, thread);
  };
  load(std::false_type(), rows.a, args.a);
  if (Rule::kReads || Rule::kHalves == 2 || blockIdx.y == 0)
    load(std::false_type(), rows.v, args.v);
  if constexpr (Rule::kResidual) load(kTiles, rows.r, args.r);
  if constexpr (Rule::kReads) {
    load(kTiles, rows.q, args.q);
    load_scalars(rows.scale, args.scale);
  }
  if constexpr (Rule::kDecays) load_scalars(rows.decay, args.decay);
}

/// Rounds what the thread has copied of a chunk, where the grade is TF32. v is no operand.
template <class Rule>
__device__ inline void prepare_operands(const ChunkedArgs& args, typename Rule::Rows& rows) {
  const int thread = static_cast<int>(threadIdx.x) - Rule::kStateWarps * kWarp;
  if (thread < 0 || Rule::kGrade != Grade::tf32) return;
  prepare_rows<Rule, false>(rows.a, args.a.wide, thread);
  if constexpr (Rule::kResidual) prepare_rows<Rule, true>(rows.r, args.r.wide, thread);
  if constexpr (Rule::kReads) prepare_rows<Rule, true>(rows.q, args.q.wide, thread);
}

// What no state enters: step 2, and z of step 6, by the warps of Gram matrices. -----------------

/// A block (16, 16) of X or P.
struct GramItem {
  int i, j;
  bool is_x;
};

/// The block that warp `warp` computes as its `turn`-th. Diagonal blocks of X come first, a warp
/// each: their inverses take as long as a product.
template <class Rule>
__device__ inline bool gram_item(int warp, int turn, GramItem& item) {
  constexpr int kBlocks = Rule::C / 16;
  constexpr int kBelow = kBlocks * (kBlocks - 1) / 2;
  constexpr int kDiagonals = Rule::kResidual ? kBlocks : 0;
  constexpr int kTaken = kDiagonals % Rule::kGramWarps;  // warps with a diagonal block more
  static_assert(kDiagonals < Rule::kGramWarps);
  int rest = warp - kTaken + turn * (Rule::kGramWarps - kTaken);
  if (warp < kTaken) {
    item = {warp, warp, true};
    return turn == 0;
  }
  if (Rule::kResidual && rest < kBelow) {
    item.is_x = true;
    item.i = rest < 1 ? 1 : rest < 3 ? 2 : 3;
    item.j = rest - item.i * (item.i - 1) / 2;
    return true;
  }
  if (Rule::kResidual) rest -= kBelow;
  item.is_x = false;
  if (!Rule::kReads || rest >= kBelow + kBlocks) return false;
  item.i = rest < 1 ? 0 : rest < 3 ? 1 : rest < 6 ? 2 : 3;
  item.j = rest - item.i * (item.i + 1) / 2;
  return true;
}

/// Sums of log2 alpha: logs[t] over the tokens before t. In double, for the differences of sums
/// that stand behind a decay near 0. A decay of 0 counts as 1e-30.
template <class Rule>
__device__ inline void sum_logs(const float* decay, int count, float2 (&logs)[Rule::C + 1]) {
  static_assert(Rule::C <= kWarp);
  const int token = static_cast<int>(threadIdx.x) % kWarp;
  const float alpha = token < count ? decay[token] : 1.0F;
  double sum = static_cast<double>(log2f(alpha < 1e-30F ? 1e-30F : alpha));
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const double other = __shfl_up_sync(0xFFFFFFFFU, sum, offset);
    if (token >= offset) sum += other;
  }
  if (token == 0) logs[0] = make_float2(0.0F, 0.0F);
  const auto rounded = static_cast<float>(sum);
  const auto rest = static_cast<float>(sum - static_cast<double>(rounded));
  if (token < Rule::C) logs[token + 1] = make_float2(rounded, rest);
  __syncwarp();
}
__device__ inline float gamma_of(float2 to, float2 from) {
  return exp2f((to.x - from.x) + (to.y - from.y));
}

template <class Rule>
__device__ inline void write_decays(const float2 (&logs)[Rule::C + 1],
                                    typename Rule::Decays& decays) {
  const int token = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= Rule::C) return;
  decays.before[token] = gamma_of(logs[token], logs[0]);
  decays.through[token] = gamma_of(logs[token + 1], logs[0]);
  decays.after[token] = gamma_of(logs[Rule::C], logs[token + 1]);
  if (token == 0) decays.whole = gamma_of(logs[Rule::C], logs[0]);
}

/// 2: a block of P, or of -X below its diagonal; a diagonal block of X inverted.
template <class Rule>
__device__ inline void compute_block(const Place& at, const GramItem& item,
                                     const typename Rule::Rows& rows, const float2* logs,
                                     typename Rule::Products& products) {
  constexpr int C = Rule::C;
  constexpr Grade kGrade = Rule::kGrade;
  float block[2][4];
  float* to = nullptr;
  const float* left_rows = nullptr;
  if constexpr (Rule::kResidual) {
    if (item.is_x) {
      to = products.x;
      left_rows = rows.r;
    }
  }
  if constexpr (Rule::kReads) {
    if (!item.is_x) {
      to = products.p;
      left_rows = rows.q;
    }
  }
  gram_block<kGrade, Rule::D>(at, left_rows, rows.a, item.i, item.j, block);
  const float sign = item.is_x && item.i != item.j ? -1.0F : 1.0F;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = 16 * item.i + 8 * half + at.row();
    const int last = item.is_x ? row - 1 : row;  // the last token that enters
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int column = 16 * item.j + 8 * (w / 2) + at.token(w % 2);
      float& x = block[half][w];
      float factor = sign;
      if constexpr (Rule::kDecays) {
        factor *= column <= last ? gamma_of(logs[last + 1], logs[column + 1]) : 0.0F;
      }
      x = column <= last ? factor * x : 0.0F;
      sum += x;
    }
    *reinterpret_cast<float4*>(to + row * kRowWords<C> + 16 * item.j + 4 * at.t) =
        make_float4(prepared<kGrade>(block[half][0]), prepared<kGrade>(block[half][1]),
                    prepared<kGrade>(block[half][2]), prepared<kGrade>(block[half][3]));
    if constexpr (Rule::kNormalises) {
      sum = group_sum<4>(sum);
      if (at.t == 0) products.sums.inside[item.j][row] = sum;
    }
  }
  if constexpr (Rule::kResidual) {
    if (item.is_x && item.i == item.j) {
      __syncwarp();
      invert_unit_block<Rule::kGrade, kRowWords<C>>(to + 16 * item.i * (kRowWords<C> + 1));
    }
  }
}

/// 6: z . q_t with the z before the chunk, and the z behind it.
template <class Rule>
__device__ inline void advance_sums(const typename Rule::Rows& rows, typename Rule::Sums& now,
                                    typename Rule::Sums& next) {
  constexpr int D = Rule::D;
  constexpr int kStride = kRowWords<D>;
  const int thread = static_cast<int>(threadIdx.x) - Rule::kStateWarps * kWarp;
  if constexpr (Rule::kReads) {
    static_assert(Rule::C * 4 <= Rule::kGramWarps * kWarp);
    const int token = thread / 4 % Rule::C;
    float sum[4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      const int channel = 16 * i + 4 * (thread % 4);
      const float* from = rows.q + token * kStride + channel;
      const float4 q = by_tiles<Rule::kGrade>(*reinterpret_cast<const float4*>(from));
      const float4 z = *reinterpret_cast<const float4*>(now.z + channel);
      sum[0] = fmaf(q.x, z.x, sum[0]);
      sum[1] = fmaf(q.y, z.z, sum[1]);
      sum[2] = fmaf(q.z, z.y, sum[2]);
      sum[3] = fmaf(q.w, z.w, sum[3]);
    }
    const float along = group_sum<4>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    if (thread % 4 == 0) now.along[token] = along;
  }
  if (thread >= D) return;
  float sum[4] = {};
#pragma unroll
  for (int t = 0; t < Rule::C; ++t) sum[t % 4] += rows.a[t * kStride + thread];
  next.z[thread] = now.z[thread] + ((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

template <class Rule>
__device__ inline void prepare_chunk(const typename Rule::Rows& rows, int count,
                                     typename Rule::Products& products,
                                     typename Rule::Products& next, typename Rule::Shared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp - Rule::kStateWarps;
  const float2* logs = nullptr;
  if constexpr (Rule::kDecays) {
    sum_logs<Rule>(rows.decay, count, shared.logs[warp]);
    if (warp == Rule::kGramWarps - 1) write_decays<Rule>(shared.logs[warp], products.decays);
    logs = shared.logs[warp];
  }
  if constexpr (Rule::kNormalises) advance_sums<Rule>(rows, products.sums, next.sums);
  if constexpr (Rule::kResidual || Rule::kReads) {
    const Place at;
    GramItem item;
#pragma unroll 1
    for (int turn = 0; gram_item<Rule>(warp, turn, item); ++turn) {
      compute_block<Rule>(at, item, rows, logs, products);
    }
  }
}

// Steps 3 to 5 by the warps of S. ----------------------------------------------------------------

/// Rows g and g + 8 of 16 value rows, from or to (d, d) in global memory.
template <int D, class Quad>
__device__ inline void each_quad(const Place& at, int first_row, const Quad& quad) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int m = 0; m < D / 16; ++m) {
      quad((first_row + at.g + 8 * half) * D + 16 * m + 4 * at.t, m, half);
    }
  }
}
template <int D>
__device__ inline void load_state(const Place& at, const float* from, int first_row,
                                  TileRow<D / 8>& s) {
  each_quad<D>(at, first_row, [&](int offset, int m, int half) {
    const float4 x = *reinterpret_cast<const float4*>(from + offset);
    s[2 * m][2 * half] = x.x;
    s[2 * m + 1][2 * half] = x.y;
    s[2 * m][2 * half + 1] = x.z;
    s[2 * m + 1][2 * half + 1] = x.w;
  });
}
template <int D>
__device__ inline void store_state(const Place& at, float* to, int first_row,
                                   const TileRow<D / 8>& s) {
  each_quad<D>(at, first_row, [&](int offset, int m, int half) {
    *reinterpret_cast<float4*>(to + offset) =
        make_float4(s[2 * m][2 * half], s[2 * m + 1][2 * half], s[2 * m][2 * half + 1],
                    s[2 * m + 1][2 * half + 1]);
  });
}
/// Rows of the identity.
template <int D>
__device__ inline void set_identity(const Place& at, int first_row, TileRow<D / 8>& s) {
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const int row = first_row + at.g + 8 * (c / 2);
#pragma unroll
    for (int tile = 0; tile < D / 8; ++tile) {
      const int channel = 16 * (tile / 2) + 4 * at.t + 2 * (c % 2) + tile % 2;
      s[tile][c] = row == channel ? 1.0F : 0.0F;
    }
  }
}

/// What a chunk's value rows become outside: `count` tokens to `target`.
template <int C>
__device__ inline void put_rows(const Place& at, int first_row, const TileRow<C / 8>& x,
                                const TokenTarget& target, int batch, int head, Index first,
                                int count) {
  const Index stride = target.view.token;
  const int row = first_row + at.g;
  float* to = target.view.lane(batch, head) + first * stride + row;
  float* token[2] = {to + at.token(0) * stride, to + at.token(1) * stride};
#pragma unroll
  for (int b = 0; b < C / 8; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const bool valid = 8 * b + at.token(h) < count;
      if (valid && row < target.width) token[h][0] = x[b][h];
      if (valid && row + 8 < target.width) token[h][8] = x[b][2 + h];
      token[h] += 8 * stride;
    }
  }
}

/// 3: e (16, C). Rows of Phi (without values) start from v = 0.
template <class Rule>
__device__ inline void take_residual(const Place& at, int first_row, bool has_values,
                                     const typename Rule::Rows& rows,
                                     const typename Rule::Products& products,
                                     TileRow<Rule::C / 8>& e) {
  constexpr int C = Rule::C;
#pragma unroll
  for (int b = 0; b < C / 8; ++b) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int token = 8 * b + at.token(c % 2);
      const int row = first_row + at.g + 8 * (c / 2);
      const float v = has_values ? rows.v[token * kRowWords<Rule::D> + row] : 0.0F;
      if constexpr (Rule::kResidual && Rule::kDecays) {
        e[b][c] = fmaf(-products.decays.before[token], e[b][c], v);
      } else if constexpr (Rule::kResidual) {
        e[b][c] = v - e[b][c];
      } else {
        e[b][c] = v;
      }
    }
  }
  if constexpr (Rule::kResidual) solve_triangle<Rule::kGrade, C>(at, products.x, e);
}

/// 6: c_t of a token; the first of a segment's warps writes the denominators.
template <class Rule>
__device__ inline float scale_of(const ChunkedArgs& args, const typename Rule::Rows& rows,
                                 const typename Rule::Products& products, int token,
                                 float* denominator) {
  if constexpr (Rule::kNormalises) {
    float along = products.sums.along[token];
#pragma unroll
    for (int j = 0; j < Rule::C / 16; ++j) {
      if (j <= token / 16) along += products.sums.inside[j][token];
    }
    if (denominator != nullptr) *denominator = along;
    return __fdividef(1.0F, at_least(along, args.floor));
  }
  return rows.scale[token];
}

/// 4: n (16, C), which holds S q, becomes o and is written.
template <class Rule>
__device__ inline void put_output(const Place& at, const ChunkedArgs& args,
                                  const Segment<Rule>& segment, int chunk, int first_row,
                                  const typename Rule::Rows& rows,
                                  const typename Rule::Products& products,
                                  const TileRow<Rule::C / 8>& e, TileRow<Rule::C / 8>& n) {
  constexpr int C = Rule::C;
  const Index first = segment.first + chunk * C;
  const int count = segment.tokens_of(chunk);
  if constexpr (Rule::kDecays) {
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
#pragma unroll
      for (int c = 0; c < 4; ++c) n[b][c] *= products.decays.through[8 * b + at.token(c % 2)];
    }
  }
  multiply_triangle<Rule::kGrade, C>(at, products.p, e, n);
#pragma unroll
  for (int b = 0; b < C / 8; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = 8 * b + at.token(h);
      float* denominator = nullptr;
      if (Rule::kNormalises && first_row == 0 && at.g == 0 && token < count) {
        const Index row = static_cast<Index>(segment.batch) * args.tokens + first + token;
        denominator = args.denominator + row * args.heads + segment.head;
      }
      const float scale = scale_of<Rule>(args, rows, products, token, denominator);
      n[b][h] *= scale;
      n[b][2 + h] *= scale;
    }
  }
  put_rows<C>(at, first_row, n, args.o, segment.batch, segment.head, first, count);
  if (args.e.view.data != nullptr) {
    put_rows<C>(at, first_row, e, args.e, segment.batch, segment.head, first, count);
  }
}

/// A warp's rows of S, and of Phi where both are one block's.
template <class Rule>
struct StateRows {
  static constexpr int D = Rule::D;
  static constexpr int C = Rule::C;
  const int first_row = static_cast<int>(threadIdx.x) / kWarp * 16;
  float s[Rule::kHalves][D / 8][4];

  /// Whether rows `half` are those of Phi.
  __device__ static bool is_map(int half) {
    return Rule::kHalves == 2 ? half == 1 : blockIdx.y == 1;
  }
  __device__ void start(const Place& at, const ChunkedArgs& args, const Segment<Rule>& segment) {
#pragma unroll
    for (int half = 0; half < Rule::kHalves; ++half) {
      if (!Rule::kReads && is_map(half)) {
        set_identity<D>(at, first_row, s[half]);
      } else if (Rule::kReads && segment.index > 0) {
        const float* from = args.states + (segment.slot(args) - 1) * Rule::kSlot;
        load_state<D>(at, from, first_row, s[half]);
      } else {
#pragma unroll
        for (int tile = 0; tile < D / 8; ++tile) {
#pragma unroll
          for (int c = 0; c < 4; ++c) s[half][tile][c] = 0.0F;
        }
      }
    }
  }
  __device__ void put(const Place& at, const ChunkedArgs& args,
                      const Segment<Rule>& segment) const {
#pragma unroll
    for (int half = 0; half < Rule::kHalves; ++half) {
      float* to = is_map(half) ? args.maps + segment.slot(args) * D * D
                               : args.states + segment.slot(args) * Rule::kSlot;
      store_state<D>(at, to, first_row, s[half]);
    }
  }

  __device__ void run(const Place& at, const ChunkedArgs& args, const Segment<Rule>& segment,
                      int chunk, const typename Rule::Rows& rows,
                      const typename Rule::Products& products) {
    constexpr Grade kGrade = Rule::kGrade;
    const float* after = nullptr;
    if constexpr (Rule::kDecays) after = products.decays.after;
    if constexpr (Rule::kReads) {
      float n[Rule::kResidual ? 2 : 1][C / 8][4] = {};  // S q, S r
      if constexpr (Rule::kResidual) {
        const float* const read[2] = {rows.q, rows.r};
        read_state<kGrade, D, C>(at, s[0], read, n);
      } else {
        const float* const read[1] = {rows.q};
        read_state<kGrade, D, C>(at, s[0], read, n);
      }
      float e[C / 8][4];
      copy_tiles(n[Rule::kResidual ? 1 : 0], e);
      take_residual<Rule>(at, first_row, true, rows, products, e);
      put_output<Rule>(at, args, segment, chunk, first_row, rows, products, e, n[0]);
      write(at, rows, products, after, e, 0);
    } else {
#pragma unroll
      for (int half = 0; half < Rule::kHalves; ++half) {
        float e[1][C / 8][4] = {};
        if constexpr (Rule::kResidual) {
          const float* const read[1] = {rows.r};
          read_state<kGrade, D, C>(at, s[half], read, e);
        }
        take_residual<Rule>(at, first_row, !is_map(half), rows, products, e[0]);
        write(at, rows, products, after, e[0], half);
      }
    }
  }

 private:
  __device__ static void copy_tiles(const TileRow<C / 8>& from, TileRow<C / 8>& to) {
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
#pragma unroll
      for (int c = 0; c < 4; ++c) to[b][c] = from[b][c];
    }
  }
  /// 5
  __device__ void write(const Place& at, const typename Rule::Rows& rows,
                        const typename Rule::Products& products, const float* after,
                        const TileRow<C / 8>& e, int half) {
    float decay = 1.0F;
    if constexpr (Rule::kDecays) decay = products.decays.whole;
    write_state<Rule::kGrade, D, C>(at, e, rows.a, after, decay, s[half]);
  }
};

/// z before a segment's first chunk.
template <class Rule>
__device__ inline void start_sums(const ChunkedArgs& args, const Segment<Rule>& segment,
                                  typename Rule::Sums& sums) {
  for (int j = static_cast<int>(threadIdx.x); j < Rule::D; j += Rule::kThreads) {
    const bool starts = !Rule::kReads || segment.index == 0;
    const float* from = args.states + (segment.slot(args) - 1) * Rule::kSlot + Rule::D * Rule::D;
    sums.z[j] = starts ? 0.0F : from[j];
  }
}

/// The chunks of a segment: an element's, or the forward.
template <class Rule>
__global__ void __launch_bounds__(Rule::kThreads, Rule::kBlocks)
    chunked_kernel(const ChunkedArgs args) {
  using Shared = typename Rule::Shared;
  constexpr int kBuffers = Rule::kBuffers;
  extern __shared__ float4 memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);

  const Segment<Rule> segment(args);
  const Place at;
  const bool has_state = threadIdx.x < Rule::kStateWarps * kWarp;
  StateRows<Rule> state;
  float factor = 1.0F;  // the product of the decays so far, in the first thread
  if (has_state) state.start(at, args, segment);
  if constexpr (Rule::kNormalises) start_sums<Rule>(args, segment, shared.products[0].sums);
  for (int chunk = 0; chunk < kBuffers - 1; ++chunk) {
    load_chunk<Rule>(args, segment, chunk, shared.rows[chunk]);
    close_group();
  }
  // The state's warps are a chunk behind.
#pragma unroll 1
  for (int chunk = -1; chunk < segment.chunks; ++chunk) {
    wait_for_groups<kBuffers - 3>();
    if (chunk + 1 < segment.chunks) {
      prepare_operands<Rule>(args, shared.rows[(chunk + 1) % kBuffers]);
    }
    __syncthreads();
    if (chunk >= 0) {
      const int ahead = chunk + kBuffers - 1;
      load_chunk<Rule>(args, segment, ahead, shared.rows[ahead % kBuffers]);
    }
    close_group();
    if (has_state && chunk >= 0) {
      const auto& products = shared.products[chunk % 2];
      state.run(at, args, segment, chunk, shared.rows[chunk % kBuffers], products);
      if constexpr (Rule::kDecays && !Rule::kReads) factor *= products.decays.whole;
    } else if (!has_state && chunk + 1 < segment.chunks) {
      prepare_chunk<Rule>(shared.rows[(chunk + 1) % kBuffers], segment.tokens_of(chunk + 1),
                          shared.products[(chunk + 1) & 1], shared.products[chunk & 1], shared);
    }
  }
  if constexpr (!Rule::kReads) {
    if (has_state) state.put(at, args, segment);
    if (threadIdx.x == 0 && blockIdx.y == 0) args.factors[segment.slot(args)] = factor;
    if constexpr (Rule::kNormalises) {
      __syncthreads();
      float* to = args.states + segment.slot(args) * Rule::kSlot + Rule::D * Rule::D;
      for (int j = static_cast<int>(threadIdx.x); j < Rule::D; j += Rule::kThreads) {
        to[j] = shared.products[segment.chunks % 2].sums.z[j];
      }
    }
  }
}

// 14: S and z behind each segment, in the place of what the segment does to zeros. ----------------

/// Rows of S of one lane by a block, two rows and two columns by a thread. Plain float32: there are
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
    join_segments_kernel(const ChunkedArgs args) {
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

constexpr int kSumThreads = 128;
/// Without a residual Phi is a number. `elements` of a slot: S, and z.
__global__ void __launch_bounds__(kSumThreads)
    add_segments_kernel(const ChunkedArgs args, int elements, int slot_size) {
  constexpr int kAhead = 8;
  const int element = static_cast<int>(blockIdx.y) * kSumThreads + static_cast<int>(threadIdx.x);
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
      factor[i] = valid ? args.factors[slot + first + i] : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= joins) continue;
      sum = fmaf(factor[i], sum, local[i]);
      states[static_cast<Index>(first + i) * slot_size] = sum;
    }
  }
}

// Launches. ---------------------------------------------------------------------------------------

template <class Rule>
void run_chunks(cudaStream_t stream, const ChunkedArgs& args, Index lanes) {
  const auto segments = static_cast<Index>(Rule::kReads ? args.segments : args.segments - 1);
  const unsigned maps = !Rule::kReads && Rule::kResidual && Rule::kHalves == 1 ? 2 : 1;
  constexpr int kBytes = sizeof(typename Rule::Shared);
  static_assert(Rule::kBlocks * (kBytes + 1024) <= 228 * 1024);
  const auto kernel = chunked_kernel<Rule>;
  VLA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(lanes * segments), maps);
  kernel<<<grid, Rule::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("chunked_kernel");
}

template <int D>
void join_segments(cudaStream_t stream, const ChunkedArgs& args, Index lanes, bool residual) {
  if (residual) {
    using Shape = JoinShape<D>;
    const auto kernel = join_segments_kernel<D>;
    constexpr int kBytes = Shape::kSharedBytes;
    VLA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    const dim3 grid(static_cast<unsigned>(lanes), D / Shape::kRows);
    kernel<<<grid, Shape::kThreads, kBytes, stream>>>(args);
    VLA_CUDA_LAUNCHED("join_segments_kernel");
    return;
  }
  const int slot = (D + 1) * D;
  const int elements = args.denominator != nullptr ? slot : D * D;
  const dim3 grid(static_cast<unsigned>(lanes),
                  static_cast<unsigned>((elements + kSumThreads - 1) / kSumThreads));
  add_segments_kernel<<<grid, kSumThreads, 0, stream>>>(args, elements, slot);
  VLA_CUDA_LAUNCHED("add_segments_kernel");
}

template <int D, Grade kGrade, bool kDecays, bool kResidual, bool kNormalises>
void run_segments(cudaStream_t stream, const ChunkedArgs& args, Index lanes) {
  if (args.segments > 1) {
    run_chunks<ChunkRule<D, kGrade, kDecays, kResidual, kNormalises, false>>(stream, args, lanes);
    join_segments<D>(stream, args, lanes, kResidual);
  }
  run_chunks<ChunkRule<D, kGrade, kDecays, kResidual, kNormalises, true>>(stream, args, lanes);
}

template <int D, Grade kGrade>
void with_form(cudaStream_t stream, const RecurrenceInputs& inputs, const ChunkedArgs& args) {
  const Index lanes = inputs.dims.lanes();
  const bool decays = inputs.decay_kind == Decay::head;
  if (inputs.r.data != nullptr) {
    if (decays) return run_segments<D, kGrade, true, true, false>(stream, args, lanes);
    return run_segments<D, kGrade, false, true, false>(stream, args, lanes);
  }
  if (decays) return run_segments<D, kGrade, true, false, false>(stream, args, lanes);
  if (args.denominator == nullptr) {
    return run_segments<D, kGrade, false, false, false>(stream, args, lanes);
  }
  run_segments<D, kGrade, false, false, true>(stream, args, lanes);
}

ChunkedArgs kernel_args(const RecurrenceInputs& inputs, const RecurrenceForward& args,
                        const ChunkedOptions& options) {
  const HeadDims& dims = inputs.dims;
  const ChunkedPlan& plan = options.plan;
  ChunkedArgs result{
      .tokens = static_cast<int>(dims.tokens),
      .heads = static_cast<int>(dims.heads),
      .segments = static_cast<int>(plan.segments),
      .segment_tokens = static_cast<int>(plan.segments == 1 ? dims.tokens : plan.segment_tokens),
      .r = {dims, inputs.r},
      .a = {dims, inputs.a},
      .q = {dims, inputs.q},
      .v = {dims, args.v},
      .decay = {dims, inputs.decay},
      .scale = {dims, inputs.scale},
      .o = {dims, args.o},
      .e = {dims, args.e},
      .denominator = args.denominator,
      .floor = args.floor};
  if (plan.segments > 1) {
    const Index d = kernel_head_size(dims.d_h);
    const Index slots = dims.lanes() * plan.segments;
    result.states = options.scratch;
    result.maps = result.states + slots * (d + 1) * d;
    result.factors = result.maps + slots * d * d;
  }
  return result;
}

Index ceil_div(Index x, Index y) { return (x + y - 1) / y; }

}  // namespace

bool chunks_are_faster(const RecurrenceForm& form, const HeadDims& dims, bool wants_checkpoints) {
  const bool exists = form.decay == Decay::none || form.decay == Decay::head;
  return exists && !wants_checkpoints && dims.tokens >= kLeastChunkedTokens;
}

ChunkedPlan plan_segments(const HeadDims& dims, int multiprocessors) {
  const Index room = std::max<Index>(1, multiprocessors / dims.lanes());
  const Index most = std::max<Index>(1, dims.tokens / kLeastSegmentTokens);
  const Index tokens = ceil_div(dims.tokens, std::min(room, most));
  const Index segment = ceil_div(tokens, kChunkTokens) * kChunkTokens;
  return {.segments = ceil_div(dims.tokens, segment), .segment_tokens = segment};
}

Index chunked_scratch_size(const HeadDims& dims, const ChunkedPlan& plan) {
  if (plan.segments == 1) return 0;
  const Index d = kernel_head_size(dims.d_h);
  return dims.lanes() * plan.segments * ((d + 1) * d + d * d + 1);
}

void chunked_forward(cudaStream_t stream, const RecurrenceInputs& inputs,
                     const RecurrenceForward& args, const ChunkedOptions& options) {
  const ChunkedArgs chunked = kernel_args(inputs, args, options);
  with_head_size(inputs.dims.d_h, [&](auto d) {
    if (options.grade == Grade::tf32) {
      with_form<d, Grade::tf32>(stream, inputs, chunked);
    } else {
      with_form<d, Grade::float32>(stream, inputs, chunked);
    }
  });
}

}  // namespace vla_bench::mixers::cuda
