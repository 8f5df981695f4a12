// Lines of a matrix (d, d), its rows or its columns, spread over the threads of a block.
#pragma once

#include <type_traits>

#include "mixers/recurrence/form.h"
#include "mixers/recurrence/pipeline.cuh"
#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench::mixers::cuda {

/// x . y of a thread's share, in four chains: additions take four cycles each.
template <int E>
__device__ inline float partial_dot(const float (&x)[E], const float (&y)[E]) {
  float chain[4] = {};
#pragma unroll
  for (int e = 0; e < E; ++e) chain[e % 4] = fmaf(x[e], y[e], chain[e % 4]);
  return (chain[0] + chain[1]) + (chain[2] + chain[3]);
}

/// The sum over a group of G neighbouring threads, in each of them; same order in all of them.
template <int G>
__device__ inline float group_sum(float value) {
#pragma unroll
  for (int offset = 1; offset < G; offset *= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  return value;
}

/// A line lies on a group of G neighbouring threads; a thread holds its share of R lines, so that a
/// vector read from shared memory serves several. Of a line thread g of the group holds E = D / G
/// channels in quads, quad m being channels 4 (g + G m) .. + 3: a group reads one stretch of shared
/// memory at a time, and other groups of the warp read the same.
template <int D, int G, int R, int kThreads_, int kTokens_>
struct LineShape {
  static constexpr int kThreads = kThreads_;  // of a block
  static constexpr int kTokens = kTokens_;    // of a tile
  static constexpr int kLines = R;            // of a thread
  static constexpr int kGroups = kThreads / G;
  static constexpr int kBlockLines = kGroups * R;
  static constexpr int kChannels = D / G;
  using Along = float[kChannels];  // a thread's share of a vector along a line
  using Own = float[R];            // a number for each of its lines

  __device__ static int member() { return static_cast<int>(threadIdx.x) % G; }
  /// The thread's line r among the block's.
  __device__ static int line(int r) { return static_cast<int>(threadIdx.x) / G + kGroups * r; }
  __device__ static int channel(int e) { return 4 * (member() + G * (e / 4)) + e % 4; }

  __device__ static void load(const float* from, Along& to) {
#pragma unroll
    for (int m = 0; m < kChannels / 4; ++m) {
      const float4 quad = *reinterpret_cast<const float4*>(from + 4 * (member() + G * m));
      to[4 * m] = quad.x;
      to[4 * m + 1] = quad.y;
      to[4 * m + 2] = quad.z;
      to[4 * m + 3] = quad.w;
    }
  }
  __device__ static void store(float* to, const Along& from) {
#pragma unroll
    for (int m = 0; m < kChannels / 4; ++m) {
      *reinterpret_cast<float4*>(to + 4 * (member() + G * m)) =
          make_float4(from[4 * m], from[4 * m + 1], from[4 * m + 2], from[4 * m + 3]);
    }
  }

  __device__ static void load_own(const float* from, Own& to) {
#pragma unroll
    for (int r = 0; r < R; ++r) to[r] = from[line(r)];
  }
  /// Line r's number by thread r of its group: one store in place of R.
  __device__ static void store_own(float* to, const Own& from) {
    if (member() >= R) return;
    float value = from[0];
#pragma unroll
    for (int r = 1; r < R; ++r) value = member() == r ? from[r] : value;
    to[line(member())] = value;
  }

  /// x . y over all channels of a line, in each thread of its group.
  __device__ static float dot(const Along& x, const Along& y) {
    return group_sum<G>(partial_dot(x, y));
  }
};

/// A line of 256 channels: as many channels a thread as of 128, and tiles that fit into 48 KiB.
using WideLine = LineShape<256, 8, 1, 128, 4>;
template <int D, class Shape>
using LineOr = std::conditional_t<D == 256, WideLine, Shape>;

/// Rows. Blocks are small: rows that fit into one warp or two need no more, and short blocks spread
/// over more multiprocessors.
template <int D>
using RowShape = LineOr<D, LineShape<D, 4, D <= 32 ? 2 : 1, D == 16 ? 32 : 64, D == 128 ? 8 : 16>>;

/// Columns. What limits these passes at small d is the 128 bytes a cycle that a multiprocessor
/// reads from shared memory, so a vector read serves two columns. From d = 64 on the registers hold
/// one.
template <int D>
using ColumnShape =
    LineOr<D, LineShape<D, D == 32 ? 2 : 4, D <= 32 ? 2 : 1, D <= 32 ? 32 : 64, D == 128 ? 8 : 16>>;

/// walk_tile's kAhead in column passes: at d = 128 no registers are left for two tokens' vectors.
template <int D>
inline constexpr bool kReadsAhead = D <= 64;
/// walk_tile's kUnroll in column passes. A whole tile lets the compiler begin a token before the
/// one in front has ended; with two columns a thread that takes more registers than there are.
template <class Shape>
inline constexpr int kUnroll = Shape::kLines == 1 ? Shape::kTokens : 1;

/// Lines whose states between checkpoints stand in registers: at most 128 channels of them.
template <int D>
using HistoryShape = LineOr<
    D, LineShape<D, D == 128 ? 8 : 4, D <= 32 ? 2 : 1, D <= 32 ? 2 * D : D, checkpoint_tokens(D)>>;

/// The decay of a thread's lines, taken as rows: a pass over columns passes transposed(decay).
template <int D, class Shape, Decay kDecay>
struct LineDecay {
  static constexpr bool kOwn = kDecay == Decay::rows;
  static constexpr bool kAlong = kDecay == Decay::columns;
  static constexpr int kNumbers = kDecay == Decay::none ? 0 : 1;
  using Tile = InputTile<Shape::kTokens, kOwn ? Shape::kBlockLines : kAlong ? D : kNumbers>;
  float numbers[kOwn ? Shape::kLines : kAlong ? Shape::kChannels : 1];

  /// Of the tile's channels.
  static __device__ int first_channel(int first_line) { return kOwn ? first_line : 0; }
  __device__ void load(const float* token) {
    if constexpr (kOwn) {
      Shape::load_own(token, numbers);
    } else if constexpr (kAlong) {
      Shape::load(token, numbers);
    } else if constexpr (kDecay == Decay::head) {
      numbers[0] = *token;
    }
  }
  /// Channel e of line r, decayed.
  __device__ float times(float value, int r, int e) const {
    if constexpr (kDecay == Decay::none) return value;
    return numbers[kOwn ? r : kAlong ? e : 0] * value;
  }
};

/// Runs use(t, operands) for a tile's tokens t in kOrder, after load(t, operands). kAhead: the
/// operands of a token are read while the one before is at work, for a thread issues in order and
/// would otherwise wait for shared memory in every token's chain. It takes registers for two
/// tokens.
template <Order kOrder, int kTokens, int kUnroll, bool kAhead, class Operands, class Load,
          class Use>
__device__ inline void walk_tile(const Load& load, const Use& use) {
  const auto token = [](int i) { return kOrder == Order::in_time ? i : kTokens - 1 - i; };
  Operands now;
  if constexpr (kAhead) load(token(0), now);
#pragma unroll kUnroll
  for (int i = 0; i < kTokens; ++i) {
    if constexpr (kAhead) {
      Operands next;
      load(token(i + 1 < kTokens ? i + 1 : i), next);
      use(token(i), now);
      now = next;
    } else {
      load(token(i), now);
      use(token(i), now);
    }
  }
}

/// The thread's lines before each token of a segment, from those before the first: a token adds its
/// number of `own` times its vector of `along`.
template <class Shape, class Decay, int kWidth>
__device__ inline void run_through_segment(
    float (&states)[Shape::kTokens][Shape::kLines][Shape::kChannels], int buffer,
    const InputTile<Shape::kTokens, kWidth>& along,
    const InputTile<Shape::kTokens, Shape::kBlockLines>& own, const typename Decay::Tile& decays) {
#pragma unroll
  for (int t = 0; t + 1 < Shape::kTokens; ++t) {
    typename Shape::Along x;
    typename Shape::Own y;
    Decay decay;
    Shape::load(along.at(buffer, t), x);
    Shape::load_own(own.at(buffer, t), y);
    decay.load(decays.at(buffer, t));
#pragma unroll
    for (int r = 0; r < Shape::kLines; ++r) {
#pragma unroll
      for (int e = 0; e < Shape::kChannels; ++e) {
        states[t + 1][r][e] = fmaf(y[r], x[e], decay.times(states[t][r][e], r, e));
      }
    }
  }
}

/// max(x, least), but NaN stays NaN.
__device__ inline float at_least(float x, float least) { return x < least ? least : x; }

}  // namespace vla_bench::mixers::cuda
