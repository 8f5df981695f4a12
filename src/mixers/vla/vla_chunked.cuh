// What the kernels of vla_chunked_cuda.h share: a chunk's tiles in shared memory and its steps.
// Matrices of tokens are stored with tokens as rows, so that A u is u^T A, and so on.
#pragma once

#include "core/cuda/check.h"
#include "mixers/features.h"
#include "mixers/recurrence/chunk_triangles.cuh"
#include "mixers/recurrence/pipeline.cuh"
#include "mixers/vla/vla_chunked_cuda.h"

namespace vla_bench::mixers::cuda {

/// Allows a kernel the shared memory that its tiles take.
inline void allow_shared_memory(const void* kernel, int bytes) {
  VLA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

/// Warps that share a task, and this one's rank among them.
struct Team {
  int rank, size;
  /// Its rank comes from one thread, so that the compiler knows a warp to stay together.
  __device__ static Team block() {
    return {__shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 32, 0),
            static_cast<int>(blockDim.x) / 32};
  }
};

/// Tokens of a chunk, and the strides of rows in shared memory: of a matrix read along its rows, of
/// one read across them. Fragments then meet no bank twice.
template <int D>
struct ChunkShape {
  static constexpr int kTokens = 32;
  static constexpr int kWarps = D < 128 ? 8 : 16;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks = D < 128 ? 2 : 1;  // of a multiprocessor
  static constexpr int kAlong = D + 4;
  static constexpr int kAcross = D + 8;
  static constexpr int kGram = kTokens + 4;
};

/// Tokens of a lane by a block: a segment, in chunks.
struct SegmentArgs {
  int tokens, heads;
  int segments, segment_tokens;
  PenaltySettings settings;
  TokenSource u;
};

SegmentArgs cut_segments(const HeadDims& dims, const PenaltySettings& settings, int wanted,
                         const TokenView<const float>& u);

/// The segment of this block.
struct Segment {
  int lane, index, first, end;

  __device__ Segment(const SegmentArgs& args, int index_)
      : lane(static_cast<int>(blockIdx.y)),
        index(index_),
        first(index * args.segment_tokens),
        end(min(args.tokens, first + args.segment_tokens)) {}
};

/// Nudges up to and including the one that follows a lane's token number `token` (from 1).
__device__ inline int nudges_until(const PenaltySettings& settings, int token) {
  return settings.period == 0 ? 0 : min(token, settings.nudged_tokens) / settings.period;
}

/// (per_eps times) the nudges since the entry of a chunk of C tokens, before and after each.
template <int C>
__device__ inline void count_nudges(const PenaltySettings& settings, int first, int tokens,
                                    float* before, float* after) {
  const int t = static_cast<int>(threadIdx.x);
  if (t >= C) return;
  const int start = nudges_until(settings, first);
  const auto since = [&](int token) {
    return settings.per_eps *
           static_cast<float>(nudges_until(settings, min(token, tokens)) - start);
  };
  before[t] = since(first + t);
  after[t] = since(first + t + 1);
}

/// Operands of tile_product in shared memory: 16 rows of the left one, 16 columns of the right one,
/// of which (i, k), k the index that is summed over, stands at data[i * kStride + k]. Loads meet no
/// bank twice where the stride is 4 modulo 8.
template <int kStride>
struct Along {
  const float* data;

  __device__ void load_left(int k, float (&x)[4]) const { load(k, lane() % 16, lane() / 16, x); }
  __device__ void load_right(int k, float (&y)[4]) const {
    load(k, lane() % 8 + lane() / 16 * 8, lane() / 8 % 2, y);
  }

 private:
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ void load(int k, int row, int half, float (&x)[4]) const {
    std::uint32_t words[4];
    ops::cuda::load_matrix_x4(words, data + row * kStride + k + 4 * half);
#pragma unroll
    for (int e = 0; e < 4; ++e) x[e] = __uint_as_float(words[e]);
  }
};
/// (i, k) at data[k * kStride + i]; the stride is 8 or 24 modulo 32.
template <int kStride>
struct Across {
  const float* data;

  __device__ void load_left(int k, float (&x)[4]) const { load<2, 1>(k, x); }
  __device__ void load_right(int k, float (&y)[4]) const { load<1, 2>(k, y); }

 private:
  template <int kOfK, int kOfI>
  __device__ void load(int k, float (&x)[4]) const {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      x[e] = data[(k + t + e / kOfK % 2 * 4) * kStride + g + e / kOfI % 2 * 8];
    }
  }
};

/// The 16 x 16 tile left right^T at grade float32, summed over the inner indices. The three terms
/// have a sum each: a sum's chain of additions is what a warp waits for.
template <class LeftOperand, class RightOperand>
__device__ inline WarpTile<1, 2> tile_product(const LeftOperand& a, const RightOperand& b,
                                              InnerRange inner) {
  using ops::cuda::multiply_add_tf32;
  WarpTile<1, 2> sum, low_high, high_low;
  const auto multiply = [&](const float(&x)[4], const float(&y)[4]) {
    const auto i = left<Grade::float32>(x[0], x[1], x[2], x[3]);
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const auto j = right<Grade::float32>(y[2 * s], y[2 * s + 1]);
      multiply_add_tf32(sum.values[0][s], i.high, j.high[0], j.high[1]);
      multiply_add_tf32(low_high.values[0][s], i.low, j.high[0], j.high[1]);
      multiply_add_tf32(high_low.values[0][s], i.high, j.low[0], j.low[1]);
    }
  };
  // The next operands are on their way while these are multiplied.
  float x[4], y[4], next_x[4], next_y[4];
  a.load_left(inner.first, x);
  b.load_right(inner.first, y);
#pragma unroll 1
  for (int k = inner.first; k < inner.end; k += 16) {
    a.load_left(k + 8, next_x);
    b.load_right(k + 8, next_y);
    multiply(x, y);
    if (k + 16 < inner.end) {
      a.load_left(k + 16, x);
      b.load_right(k + 16, y);
    }
    multiply(next_x, next_y);
  }
  low_high.add(high_low);
  sum.add(low_high);
  return sum;
}

/// A chunk on its way through steps 1 to 3 and 5.
template <int D>
struct ChunkTiles {
  using Shape = ChunkShape<D>;
  static constexpr int C = Shape::kTokens;
  alignas(16) float u[2][C * Shape::kAlong];
  alignas(16) float w[C * Shape::kAlong];
  alignas(16) float z[C * Shape::kAcross];
  alignas(16) float gram[C * Shape::kGram];  // I + u^T W, then its factor
  // By chunk modulo 2: (per_eps times) nudges since the chunk's entry; pivots before their floor.
  float before[2][C], after[2][C], pivots[2][C];
};

/// Starts copying tokens first .. first + kTokens - 1 into rows of kStride numbers, by the first
/// `threads` of the block; channels and tokens that do not exist become 0.
template <int kTokens, int D, int kStride>
__device__ inline void load_tokens(float* tile, const TokenSource& source, const float* lane,
                                   int first, int tokens, int threads = blockDim.x) {
  const int width = source.wide ? D / 4 : D;
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * width; i += threads) {
    const int token = i / width;
    const int channel = i % width * (source.wide ? 4 : 1);
    const bool valid = first + token < tokens && channel < source.width;
    // A copy of nothing still names an address: one that exists.
    const float* from = valid ? lane + (first + token) * source.view.token + channel : lane;
    float* to = tile + token * kStride + channel;
    if (source.wide) {
      copy_async_16(to, from, valid);
    } else {
      copy_async_4(to, from, valid);
    }
  }
}

/// body(i, j) for the 16 x 16 tiles of a lower triangle of n x n tiles, dealt to the team.
template <int n, class Body>
__device__ inline void for_lower_tiles(Team team, const Body& body) {
  int row = 0, column = team.rank;
  while (true) {
    while (row < n && column > row) column -= ++row;
    if (row == n) return;
    body(row, column);
    column += team.size;
  }
}
/// body(i, j) for n x m tiles, dealt to the team; a negative rank is no member. Where lower rows
/// cost more, a tensor unit, which serves every fourth warp, gets upper ones with them. `first` and
/// `end`: only the tiles from that number to the one before that.
template <int n, int m, class Body>
__device__ inline void for_tiles(Team team, const Body& body, int first = 0, int end = n * m) {
  if (team.rank < 0) return;
  for (int tile = first + team.rank; tile < end; tile += team.size) {
    const int row = tile % n;
    body(tile / (n < 4 ? 4 : n) % 2 == 0 ? n - 1 - row : row, tile / n);
  }
}

template <int D>
struct ChunkSteps {
  using Shape = ChunkShape<D>;
  static constexpr int C = Shape::kTokens;
  static constexpr int kRows = C / 16;
  static constexpr int kColumns = D / 16;
  static constexpr int kTiles = kRows * kColumns;  // of a tile of tokens
  // Warps that step 2's matrix leaves free, which take one tile of another product each.
  static constexpr int kBesideGram = Shape::kWarps - kRows * (kRows + 1) / 2;
  static constexpr int kFirstTiles = kBesideGram < kTiles ? kBesideGram : kTiles;
  __device__ static Team beside_gram(Team block) {
    return {block.rank - (block.size - kBesideGram), kBesideGram};
  }
  using Tiles = ChunkTiles<D>;
  using AlongRows = Along<Shape::kAlong>;
  using AcrossRows = Across<Shape::kAcross>;

  /// Row `row` of a matrix read along its rows; column `column` of one read across them.
  __device__ static AlongRows along(const float* data, int row) {
    return {data + row * Shape::kAlong};
  }
  __device__ static AcrossRows across(const float* data, int column) { return {data + column}; }
  template <int kStride>
  __device__ static void put(float* data, int i, int j, float x, float y) {
    *reinterpret_cast<float2*>(data + i * kStride + j) = make_float2(x, y);
  }

  /// 1: W from the symmetric `matrix`.
  __device__ static void multiply_directions(Team team, const float* matrix, Tiles& tiles,
                                             int parity) {
    const float* u = tiles.u[parity];
    const float* before = tiles.before[parity];
    for_tiles<kRows, kColumns>(team, [&](int row, int column) {
      tile_product(along(u, 16 * row), along(matrix, 16 * column), {0, D})
          .each_pair(16 * row, 16 * column, [&](int t, int i, float x, float y) {
            const float2 pair = *reinterpret_cast<const float2*>(u + t * Shape::kAlong + i);
            put<Shape::kAlong>(tiles.w, t, i, fmaf(before[t], pair.x, x),
                               fmaf(before[t], pair.y, y));
          });
    });
  }

  /// The matrix of 2, its lower triangle and what else lies in tiles of that.
  __device__ static void multiply_gram(Team team, Tiles& tiles, int parity) {
    for_lower_tiles<kRows>(team, [&](int row, int column) {
      tile_product(along(tiles.u[parity], 16 * row), along(tiles.w, 16 * column), {0, D})
          .each_pair(16 * row, 16 * column, [&](int t, int s, float x, float y) {
            put<Shape::kGram>(tiles.gram, t, s, s == t ? x + 1.0F : x, s + 1 == t ? y + 1.0F : y);
          });
    });
  }

  /// 2, by one warp.
  __device__ static void factorise_gram(Tiles& tiles, float floor, int parity) {
    factorise<kRows, Shape::kGram>(tiles.gram, floor, tiles.pivots[parity]);
  }

  /// to = from L^-T of 16 channels by a warp: 3, and an element's Y.
  template <int kStride>
  __device__ static void divide(Tiles& tiles, const float* from, float* to, int channel) {
    WarpBlock x[kRows];
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      x[k].template load_transposed<Shape::kAlong>(from + 16 * k * Shape::kAlong + channel);
    }
    divide_by_factor<kRows, Shape::kGram>(x, tiles.gram);
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      x[k].template store_transposed<kStride>(to + 16 * k * kStride + channel);
    }
  }

  /// 5: of the tokens in z.
  __device__ static void update(Team team, float* matrix, Tiles& tiles, float nudges) {
    subtract_squares<C>(team, matrix, tiles.z, nudges);
  }
  /// matrix <- matrix - z^T z + shift I with n rows of z, symmetric to the last bit.
  template <int n>
  __device__ static void subtract_squares(Team team, float* matrix, const float* z, float shift) {
    for_lower_tiles<kColumns>(team, [&](int row, int column) {
      set_symmetric(tile_product(across(z, 16 * row), across(z, 16 * column), {0, n}), row, column,
                    matrix, [&](int i, int j, float x, float y) {
                      const float* from = matrix + i * Shape::kAlong + j;
                      // Above the diagonal another thread writes.
                      float2 pair = j < i ? *reinterpret_cast<const float2*>(from)
                                          : make_float2(from[0], 0.0F);
                      pair = make_float2(pair.x - x, pair.y - y);
                      if (i == j) pair.x += shift;
                      if (i == j + 1) pair.y += shift;
                      return pair;
                    });
    });
  }
  /// matrix = value(i, j, x_ij, x_ij+1), a pair of elements, of the lower triangle's tile x, and
  /// its mirror image.
  template <class Value>
  __device__ static void set_symmetric(const WarpTile<1, 2>& tile, int row, int column,
                                       float* matrix, const Value& value) {
    const bool whole = row != column;
    tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
      if (!whole && j > i) return;
      const float2 pair = value(i, j, x, y);
      if (whole || j < i) {
        put<Shape::kAlong>(matrix, i, j, pair.x, pair.y);
        matrix[(j + 1) * Shape::kAlong + i] = pair.y;
      } else {
        matrix[i * Shape::kAlong + j] = pair.x;
      }
      matrix[j * Shape::kAlong + i] = pair.x;
    });
  }
};

}  // namespace vla_bench::mixers::cuda
