// Tiles of attention on tensor cores: operands as 32-bit words in shared memory, a word being one
// TF32 number or two bfloat16. The instruction (instructions.cuh) contracts eight words at a time
// and has the same shape for both, so one kernel serves both formats.
//
// Two layouts of a tile of rows (tokens, channels):
//   channel words, to contract over channels (scores, dp): row by row; bfloat16 pairs neighbouring
//     channels. (tokens, d / kPack), rows d / kPack + 4 words apart: the eight rows that a warp
//     reads four words of lie in different banks.
//   token words, to contract over tokens (weights times rows): word by word of tokens; bfloat16
//     pairs neighbouring tokens. (tokens / kPack, d), words d + 8 apart, for the same reason.
//     What a thread holds of a tile of products is columns 2t and 2t + 1, what it needs as the left
//     operand is words t and t + 4. Pairs of bfloat16 are just that; TF32 tokens are laid in the
//     order 0 2 4 6 1 3 5 7 of every eight, so that no product has to change its thread.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "mixers/softmax/instructions.cuh"
#include "mixers/softmax/softmax_rows.cuh"

namespace vla_bench::mixers::softmax::cuda {

/// Columns and rows of one instruction's product.
inline constexpr int kProductCols = 8, kProductRows = 16;
/// Words that one instruction contracts.
inline constexpr int kStepWords = 8;

struct Tf32Words {
  static constexpr int kPack = 1;

  /// The value of an operand after rounding.
  __device__ static float rounded_value(float x) { return __uint_as_float(round_to_tf32(x)); }
  __device__ static void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                      std::uint32_t b1) {
    multiply_add_tf32(c, a, b0, b1);
  }
  __device__ static void store_channels(std::uint32_t* row, int channel, const float4& x) {
    *reinterpret_cast<uint4*>(row + channel) = rounded(x);
  }
  /// Tokens 2 pair and 2 pair + 1.
  __device__ static void store_tokens(std::uint32_t* tile, int stride, int pair, int channel,
                                      const float4& even, const float4& odd) {
    std::uint32_t* row = tile + (pair / 4 * 8 + pair % 4) * stride + channel;
    *reinterpret_cast<uint4*>(row) = rounded(even);
    *reinterpret_cast<uint4*>(row + 4 * stride) = rounded(odd);
  }
  /// Left operand of step `step` from products over tokens.
  template <int kTiles>
  __device__ static void to_left(const float (&products)[kTiles][4], int step,
                                 std::uint32_t (&a)[4]) {
    a[0] = round_to_tf32(products[step][0]);
    a[1] = round_to_tf32(products[step][2]);
    a[2] = round_to_tf32(products[step][1]);
    a[3] = round_to_tf32(products[step][3]);
  }

 private:
  __device__ static uint4 rounded(const float4& x) {
    return make_uint4(round_to_tf32(x.x), round_to_tf32(x.y), round_to_tf32(x.z),
                      round_to_tf32(x.w));
  }
};

struct Bf16Words {
  static constexpr int kPack = 2;

  __device__ static float rounded_value(float x) {
    return __uint_as_float(pack_bf16(0.0F, x) & 0xFFFF0000U);
  }
  __device__ static void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                      std::uint32_t b1) {
    multiply_add_bf16(c, a, b0, b1);
  }
  __device__ static void store_channels(std::uint32_t* row, int channel, const float4& x) {
    *reinterpret_cast<uint2*>(row + channel / 2) =
        make_uint2(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w));
  }
  __device__ static void store_tokens(std::uint32_t* tile, int stride, int pair, int channel,
                                      const float4& even, const float4& odd) {
    *reinterpret_cast<uint4*>(tile + pair * stride + channel) =
        make_uint4(pack_bf16(even.x, odd.x), pack_bf16(even.y, odd.y), pack_bf16(even.z, odd.z),
                   pack_bf16(even.w, odd.w));
  }
  template <int kTiles>
  __device__ static void to_left(const float (&products)[kTiles][4], int step,
                                 std::uint32_t (&a)[4]) {
    a[0] = pack_bf16(products[2 * step][0], products[2 * step][1]);
    a[1] = pack_bf16(products[2 * step][2], products[2 * step][3]);
    a[2] = pack_bf16(products[2 * step + 1][0], products[2 * step + 1][1]);
    a[3] = pack_bf16(products[2 * step + 1][2], products[2 * step + 1][3]);
  }
};

/// Strides and sizes for d channels.
template <class Words, int kD>
struct WordTile {
  static constexpr int kChannelStride = kD / Words::kPack + 4;
  static constexpr int kTokenStride = kD + 8;
  static constexpr int kChannelSteps = kD / (kStepWords * Words::kPack);
  /// Words of a tile of that many tokens.
  static constexpr int channel_words(int tokens) { return tokens * kChannelStride; }
  static constexpr int token_words(int tokens) { return tokens / Words::kPack * kTokenStride; }
};

enum class Layouts { channels, tokens, both };

/// The destination of two tokens' rows.
template <class Words, int kD, Layouts kLayouts>
struct WordTarget {
  std::uint32_t* channels = nullptr;
  std::uint32_t* tokens = nullptr;

  /// Four channels of tokens 2 pair and 2 pair + 1.
  __device__ void store(int pair, int channel, const float4& even, const float4& odd) const {
    using Tile = WordTile<Words, kD>;
    if constexpr (kLayouts != Layouts::tokens) {
      std::uint32_t* row = channels + 2 * pair * Tile::kChannelStride;
      Words::store_channels(row, channel, even);
      Words::store_channels(row + Tile::kChannelStride, channel, odd);
    }
    if constexpr (kLayouts != Layouts::channels) {
      Words::store_tokens(tokens, Tile::kTokenStride, pair, channel, even, odd);
    }
  }
};

template <bool kVectors>
__device__ inline float4 load_quad_or_zeros(const float* from, bool inside) {
  float4 x;
  if constexpr (kVectors) {
    x = *reinterpret_cast<const float4*>(from);
  } else {
    x = make_float4(from[0], from[1], from[2], from[3]);
  }
  // A selection rather than a branch, which would make every load wait for the one before it.
  return inside ? x : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
}

template <bool kVectors, int kTokens, int kThreads, class Words, int kD, Layouts... kLayouts>
__device__ inline void load_words_as(int first, int end,
                                     const LaneRows<const float> (&rows)[sizeof...(kLayouts)],
                                     const WordTarget<Words, kD, kLayouts>&... targets) {
  constexpr int kLanes = sizeof...(kLayouts);
  constexpr int kQuadsOfRow = kD / 4;
  constexpr int kPairs = kTokens / 2;
  constexpr int kPairsAtOnce = kThreads / kQuadsOfRow;
  static_assert(kThreads % kQuadsOfRow == 0);
  constexpr int kRounds = (kPairs + kPairsAtOnce - 1) / kPairsAtOnce;
  // Rounds whose loads are in flight together: eight quads of registers.
  constexpr int kBatch = std::min(kRounds, 4 / kLanes);
  static_assert(kRounds % kBatch == 0);
  const int channel = 4 * (static_cast<int>(threadIdx.x) % kQuadsOfRow);
  const int thread_pair = static_cast<int>(threadIdx.x) / kQuadsOfRow;
#pragma unroll 1
  for (int round = 0; round < kRounds; round += kBatch) {
    float4 even[kBatch][kLanes], odd[kBatch][kLanes];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int token = first + 2 * (thread_pair + (round + j) * kPairsAtOnce);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        even[j][i] =
            load_quad_or_zeros<kVectors>(rows[i].at(min(token, end - 1)) + channel, token < end);
        odd[j][i] = load_quad_or_zeros<kVectors>(rows[i].at(min(token + 1, end - 1)) + channel,
                                                 token + 1 < end);
      }
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int pair = thread_pair + (round + j) * kPairsAtOnce;
      if (kPairs % kPairsAtOnce != 0 && pair >= kPairs) break;
      int i = 0;
      ((targets.store(pair, channel, even[j][i], odd[j][i]), ++i), ...);
    }
  }
}

/// Reads rows first .. first + kTokens - 1 of one lane or two (zeros from token `end` on) and
/// stores them as words.
template <int kTokens, int kThreads, class Words, int kD, Layouts... kLayouts>
__device__ inline void load_words(int first, int end,
                                  const LaneRows<const float> (&rows)[sizeof...(kLayouts)],
                                  const WordTarget<Words, kD, kLayouts>&... targets) {
  bool vectors = true;
  for (const LaneRows<const float>& lane : rows) vectors = vectors && lane.vectors;
  if (vectors) {
    load_words_as<true, kTokens, kThreads>(first, end, rows, targets...);
  } else {
    load_words_as<false, kTokens, kThreads>(first, end, rows, targets...);
  }
}

/// A thread's position in its warp's fragments.
struct FragmentThread {
  int g, t;  // l / 4 and l % 4 of thread l of the warp

  __device__ FragmentThread()
      : g(static_cast<int>(threadIdx.x) % 32 / 4), t(static_cast<int>(threadIdx.x) % 4) {}
};

/// Left operand: rows first_row .. + 15 of channel words, step `step`.
template <class Tile>
__device__ inline void load_left(const std::uint32_t* channel_tile, int first_row, int step,
                                 const FragmentThread& fragment, std::uint32_t (&a)[4]) {
  const std::uint32_t* at = channel_tile + (first_row + fragment.g) * Tile::kChannelStride +
                            kStepWords * step + fragment.t;
  a[0] = at[0];
  a[1] = at[8 * Tile::kChannelStride];
  a[2] = at[4];
  a[3] = at[8 * Tile::kChannelStride + 4];
}

/// The words of the right operand for products with row 8 n + g of channel words.
template <class Tile>
__device__ inline const std::uint32_t* right_of_channels(const std::uint32_t* channel_tile, int n,
                                                         int step, const FragmentThread& fragment) {
  return channel_tile + (kProductCols * n + fragment.g) * Tile::kChannelStride + kStepWords * step +
         fragment.t;  // and 4 words on
}

/// sums (16, d) += products (16, tokens) times rows (tokens, d), rows as token words.
template <class Words, int kD, int kTiles>
__device__ inline void add_weighted_words(const float (&products)[kTiles][4],
                                          const std::uint32_t* token_tile,
                                          const FragmentThread& fragment,
                                          float (&sums)[kD / kProductCols][4]) {
  using Tile = WordTile<Words, kD>;
#pragma unroll
  for (int step = 0; step < kTiles / Words::kPack; ++step) {
    std::uint32_t a[4];
    Words::to_left(products, step, a);
    const std::uint32_t* right =
        token_tile + (kStepWords * step + fragment.t) * Tile::kTokenStride + fragment.g;
#pragma unroll
    for (int n = 0; n < kD / kProductCols; ++n) {
      Words::multiply_add(sums[n], a, right[kProductCols * n],
                          right[4 * Tile::kTokenStride + kProductCols * n]);
    }
  }
}

/// Stores two channels of a product's row: columns 8 n + 2 t and the next.
__device__ inline void store_pair(const LaneRows<float>& rows, int token, int channel, float x,
                                  float y) {
  float* to = rows.at(token) + channel;
  if (rows.vectors) {
    *reinterpret_cast<float2*>(to) = make_float2(x, y);
  } else {
    to[0] = x;
    to[1] = y;
  }
}

}  // namespace vla_bench::mixers::softmax::cuda
