// Tiles of attention on tensor cores: operands as 32-bit words in shared memory, a word being one
// TF32 number or two bfloat16. The instruction (mma, below) contracts eight words at a time
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

#include <algorithm>
#include <cstdint>

#include "mixers/softmax/softmax_rows.cuh"

namespace vla_bench::mixers::softmax::cuda {

/// Columns and rows of one instruction's product.
inline constexpr int kProductCols = 8, kProductRows = 16;
/// Words that one instruction contracts.
inline constexpr int kStepWords = 8;

/// Rounds to the nearest TF32 number (10 bits of mantissa), ties away from zero.
__device__ inline std::uint32_t round_to_tf32(float x) {
  std::uint32_t word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
  return word;
}

/// Rounds both to the nearest bfloat16, ties to even; `low` is in the word's lower half.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

// Words::multiply_add: C (16, 8) += A (16, 8 words) B (8 words, 8) by one warp, a word being one
// TF32 number or two bfloat16 of neighbouring inner indices. With g = l / 4 and t = l % 4, thread l
// of the warp holds
//   A: rows g, g + 8, g, g + 8 of words t, t, t + 4, t + 4;   B: words t, t + 4 of column g;
//   C: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// (PTX ISA, "Matrix Fragments for mma.m16n8k8" with .tf32 and "for mma.m16n8k16" with .bf16).
struct Tf32Words {
  static constexpr int kPack = 1;

  /// The value of an operand after rounding.
  __device__ static float rounded_value(float x) { return __uint_as_float(round_to_tf32(x)); }
  __device__ static void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                      std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
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
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
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

/// Calls run.template operator()<Words, d>() for the words of a precision, tf32 or bf16.
template <class Run>
void with_words(Precision precision, Index d_h, const Run& run) {
  with_head_size<16, 32, 64, 128>(d_h, [&]<int kD>() {
    if (precision == Precision::tf32) {
      run.template operator()<Tf32Words, kD>();
    } else {
      run.template operator()<Bf16Words, kD>();
    }
  });
}

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
    unrolled<kBatch>([&](int j) {
      const int token = first + 2 * (thread_pair + (round + j) * kPairsAtOnce);
      unrolled<kLanes>([&](int i) {
        even[j][i] =
            load_quad_or_zeros<kVectors>(rows[i].at(min(token, end - 1)) + channel, token < end);
        odd[j][i] = load_quad_or_zeros<kVectors>(rows[i].at(min(token + 1, end - 1)) + channel,
                                                 token + 1 < end);
      });
    });
    unrolled<kBatch>([&](int j) {
      const int pair = thread_pair + (round + j) * kPairsAtOnce;
      if (kPairs % kPairsAtOnce != 0 && pair >= kPairs) return;
      int i = 0;
      ((targets.store(pair, channel, even[j][i], odd[j][i]), ++i), ...);
    });
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

/// The left operands of a warp's own rows, kRowTiles tiles of 16 from `first_row` on. With kHold
/// they stay in registers; otherwise each product reads them again.
template <class Words, int kD, int kRowTiles, bool kHold>
class OwnRows {
 public:
  using Tile = WordTile<Words, kD>;

  __device__ OwnRows(const std::uint32_t* tile, int first_row, const FragmentThread& fragment)
      : first_(tile + (first_row + fragment.g) * Tile::kChannelStride + fragment.t),
        fragment_(fragment) {
    if constexpr (kHold) {
      unrolled<Tile::kChannelSteps>([&](int step) { load(step, held_[step]); });
    }
  }

  /// products (16 kRowTiles, 8 kTiles) = own rows times rows of channel words.
  template <int kTiles>
  __device__ void multiply(const std::uint32_t* channel_tile,
                           float (&products)[kRowTiles][kTiles][4]) const {
#pragma unroll
    for (auto& row_tile : products) {
#pragma unroll
      for (auto& product : row_tile) product[0] = product[1] = product[2] = product[3] = 0.0F;
    }
    const std::uint32_t* rows = channel_tile + fragment_.g * Tile::kChannelStride + fragment_.t;
    unrolled<Tile::kChannelSteps>([&](int step) {
      std::uint32_t read[kRowTiles][4];
      if constexpr (!kHold) load(step, read);
      const auto& left = kHold ? held_[step] : read;
      unrolled<kTiles>([&](int n) {
        const std::uint32_t* right =
            rows + kProductCols * n * Tile::kChannelStride + kStepWords * step;
        const std::uint32_t b0 = right[0], b1 = right[4];
        unrolled<kRowTiles>([&](int m) { Words::multiply_add(products[m][n], left[m], b0, b1); });
      });
    });
  }

 private:
  using Left = std::uint32_t[kRowTiles][4];

  __device__ void load(int step, Left& left) const {
    unrolled<kRowTiles>([&](int m) {
      const std::uint32_t* at =
          first_ + kProductRows * m * Tile::kChannelStride + kStepWords * step;
      left[m][0] = at[0];
      left[m][1] = at[8 * Tile::kChannelStride];
      left[m][2] = at[4];
      left[m][3] = at[8 * Tile::kChannelStride + 4];
    });
  }

  const std::uint32_t* first_;
  FragmentThread fragment_;
  Left held_[kHold ? Tile::kChannelSteps : 1];
};

/// sums (16 kRowTiles, d) += products (16 kRowTiles, tokens) times rows (tokens, d) of token words.
/// Each word is read once for all row tiles.
template <class Words, int kD, int kRowTiles, int kTiles>
__device__ inline void add_weighted_words(const float (&products)[kRowTiles][kTiles][4],
                                          const std::uint32_t* token_tile,
                                          const FragmentThread& fragment,
                                          float (&sums)[kRowTiles][kD / kProductCols][4]) {
  constexpr int kStride = WordTile<Words, kD>::kTokenStride;
  unrolled<kTiles / Words::kPack>([&](int step) {
    std::uint32_t left[kRowTiles][4];
    unrolled<kRowTiles>([&](int m) { Words::to_left(products[m], step, left[m]); });
    const std::uint32_t* right =
        token_tile + (kStepWords * step + fragment.t) * kStride + fragment.g;
    unrolled<kD / kProductCols>([&](int n) {
      const std::uint32_t b0 = right[kProductCols * n];
      const std::uint32_t b1 = right[4 * kStride + kProductCols * n];
      unrolled<kRowTiles>([&](int m) { Words::multiply_add(sums[m][n], left[m], b0, b1); });
    });
  });
}

/// The sum over the four threads of a row; every thread gets it.
__device__ inline float row_sum(float value) {
  value += __shfl_xor_sync(0xFFFFFFFFU, value, 1);
  return value + __shfl_xor_sync(0xFFFFFFFFU, value, 2);
}

/// Writes a thread's part of row g (half 0) or g + 8 of a row tile, times `scale`, to a token.
template <int kTiles>
__device__ inline void write_row(const float (&sums)[kTiles][4], int half, float scale,
                                 const LaneRows<float>& rows, int token,
                                 const FragmentThread& fragment) {
  unrolled<kTiles>([&](int n) {
    float* to = rows.at(token) + kProductCols * n + 2 * fragment.t;
    const float2 pair = make_float2(scale * sums[n][2 * half], scale * sums[n][2 * half + 1]);
    if (rows.vectors) {
      *reinterpret_cast<float2*>(to) = pair;
    } else {
      to[0] = pair.x;
      to[1] = pair.y;
    }
  });
}

}  // namespace vla_bench::mixers::softmax::cuda
