// What the kernels of vla_chunked_cuda.h share: a chunk's tiles in shared memory and its steps.
// Matrices of tokens are stored with tokens as rows, so that A u is u^T A, and so on.
#pragma once

#include "mixers/features.h"
#include "mixers/recurrence/chunk_triangles.cuh"
#include "mixers/recurrence/pipeline.cuh"
#include "mixers/vla/vla_chunked_cuda.h"

namespace vla_bench::mixers::cuda {

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
  static constexpr int kTokens = D == 64 ? 64 : 32;
  static constexpr int kWarps = D >= 64 ? 16 : 8;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kFactorWarps = kTokens / 16;  // those that factorise
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

/// A chunk on its way through steps 1 to 3 and 5.
template <int D>
struct ChunkTiles {
  using Shape = ChunkShape<D>;
  static constexpr int C = Shape::kTokens;
  alignas(16) float u[2][C * Shape::kAlong];
  alignas(16) float w[C * Shape::kAcross];
  alignas(16) float z[C * Shape::kAcross];
  alignas(16) float gram[C * Shape::kGram];  // I + u^T W, then L^-1
  // By chunk modulo 2: (per_eps times) nudges since the chunk's entry; pivots before their floor.
  float before[2][C], after[2][C], pivots[2][C];
};

/// Starts copying tokens first .. first + kTokens - 1 into rows of kStride numbers; channels and
/// tokens that do not exist become 0.
template <int kTokens, int D, int kStride>
__device__ inline void load_tokens(float* tile, const TokenSource& source, const float* lane,
                                   int first, int tokens) {
  const int width = source.wide ? D / 4 : D;
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * width; i += blockDim.x) {
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
/// body(i, j) for n x m tiles, dealt to the team. Where lower rows cost more, a tensor unit, which
/// serves every fourth warp, gets upper ones with them.
template <int n, int m, class Body>
__device__ inline void for_tiles(Team team, const Body& body) {
  for (int tile = team.rank; tile < n * m; tile += team.size) {
    const int row = tile % n;
    body(tile / (n < 4 ? 4 : n) % 2 == 0 ? n - 1 - row : row, tile / n);
  }
}

template <int D>
struct ChunkSteps {
  using Shape = ChunkShape<D>;
  static constexpr int C = Shape::kTokens;
  static constexpr int kRows = C / 16;
  static constexpr int kWide = 2;  // eights of a tile's columns
  static constexpr int kAcrossTiles = D / (8 * kWide);
  using Tiles = ChunkTiles<D>;

  __device__ static Matrix along(float* data) { return {data, Shape::kAlong, 1}; }
  __device__ static Matrix across(float* data) { return {data, Shape::kAcross, 1}; }
  __device__ static Matrix gram(Tiles& tiles) { return {tiles.gram, Shape::kGram, 1}; }

  /// 1: W from the symmetric `matrix`.
  __device__ static void multiply_directions(Team team, float* matrix, Tiles& tiles, int parity) {
    float* u = tiles.u[parity];
    const Matrix w = across(tiles.w);
    const float* before = tiles.before[parity];
    for_tiles<kRows, kAcrossTiles>(team, [&](int row, int column) {
      WarpTile<1, kWide> tile;
      tile.template add_product<Grade::float32>(
          along(u).from(16 * row, 0), along(matrix).transposed().from(0, 8 * kWide * column),
          {0, D});
      tile.each_pair(16 * row, 8 * kWide * column, [&](int t, int i, float x, float y) {
        const float2 pair = *reinterpret_cast<const float2*>(&along(u)(t, i));
        *reinterpret_cast<float2*>(&w(t, i)) =
            make_float2(fmaf(before[t], pair.x, x), fmaf(before[t], pair.y, y));
      });
    });
  }

  /// The matrix of 2, its lower triangle and what else lies in tiles of that.
  __device__ static void multiply_gram(Team team, Tiles& tiles, int parity) {
    const Matrix out = gram(tiles);
    for_lower_tiles<kRows>(team, [&](int row, int column) {
      WarpTile<1, 2> tile;
      tile.template add_product<Grade::float32>(along(tiles.u[parity]).from(16 * row, 0),
                                                across(tiles.w).transposed().from(0, 16 * column),
                                                {0, D});
      tile.each_pair(16 * row, 16 * column, [&](int t, int s, float x, float y) {
        if (s == t) x += 1.0F;
        if (s + 1 == t) y += 1.0F;
        *reinterpret_cast<float2*>(&out(t, s)) = make_float2(x, y);
      });
    });
  }

  /// to = from L^-T: 3, and an element's Y.
  __device__ static void divide(Team team, Tiles& tiles, float* from, float* to) {
    for_tiles<kRows, kAcrossTiles>(team, [&](int row, int column) {
      WarpTile<1, kWide> tile;
      tile.template add_product<Grade::float32>(gram(tiles).from(16 * row, 0),
                                                across(from).from(0, 8 * kWide * column),
                                                {0, 16 * (row + 1)});
      tile.each_pair(16 * row, 8 * kWide * column, [&](int t, int i, float x, float y) {
        *reinterpret_cast<float2*>(&across(to)(t, i)) = make_float2(x, y);
      });
    });
  }

  /// 5: of the n tokens in z.
  __device__ static void update(Team team, float* matrix, Tiles& tiles, float nudges) {
    subtract_squares<C>(team, matrix, across(tiles.z), nudges);
  }
  /// matrix <- matrix - z^T z + shift I, symmetric to the last bit.
  template <int n>
  __device__ static void subtract_squares(Team team, float* matrix, const Matrix& z, float shift) {
    const Matrix out = along(matrix);
    for_lower_tiles<D / 16>(team, [&](int row, int column) {
      WarpTile<1, 2> tile;
      tile.template add_product<Grade::float32>(z.transposed().from(16 * row, 0),
                                                z.from(0, 16 * column), {0, n});
      const auto put = [&](int i, int j, float x) {
        if (j > i) return;
        const float value = out(i, j) - x + (i == j ? shift : 0.0F);
        out(i, j) = value;
        out(j, i) = value;
      };
      tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
        put(i, j, x);
        put(i, j + 1, y);
      });
    });
  }
};

}  // namespace vla_bench::mixers::cuda
