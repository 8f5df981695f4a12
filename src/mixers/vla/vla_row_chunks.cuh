// A chunk of vla_chunked.h with A in registers.
//
// Rows of A lie in the registers of the "row warps", 16 rows each, as accumulators of the products
// that change them and as left operands of those that read them. What all row warps multiply with,
// u and Z, lies in shared memory, split for 3xTF32 once (split_rows.cuh). One more warp, the factor
// warp, factorises. Between the barriers of a chunk:
//   1. row warps: W = A u + u diag(before)
//   2. all: the Gram matrix, a tile a warp
//   3. the factor warp: its factor; row warps: work beside the chain, the next chunk's u
//   4. row warps: Z, in the place of W
// and then A <- A - Z Z^T, which needs no barrier before the next chunk's 1.
#pragma once

#include "mixers/recurrence/split_rows.cuh"
#include "mixers/vla/vla_chunked.cuh"

namespace vla_bench::mixers::cuda {

/// Rows of a (D, D) matrix in a warp's registers.
template <int D>
class MatrixRows {
 public:
  explicit __device__ MatrixRows(int first) : first_(first) {}

  __device__ void load(const float* matrix) {
    rows_.each(first_, [&](int i, int j, float& value) { value = matrix[i * D + j]; });
  }
  __device__ void store(float* matrix) {
    rows_.each(first_, [&](int i, int j, float value) { matrix[i * D + j] = value; });
  }
  __device__ void set_identity(float scale) {
    rows_.each(first_, [&](int i, int j, float& value) { value = i == j ? scale : 0.0F; });
  }
  __device__ void add_to_diagonal(float shift) {
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      if (n / 2 != first_ / 16) continue;
      const TilePlace at;
      float(&x)[4] = rows_.values[n];
      const int row = at.row - 8 * (n % 2);  // less the first column of the tile
      if (row == at.column) x[0] += shift;
      if (row == at.column + 1) x[1] += shift;
      if (row + 8 == at.column) x[2] += shift;
      if (row + 8 == at.column + 1) x[3] += shift;
    }
  }

  /// These rows times x^T, of the 32 tokens that are rows of x, of which `right_at(token, step)`
  /// are right operands.
  template <Grade kGrade, class RightAt>
  __device__ RowTiles<4> multiply(const RightAt& right_at) const {
    return row_product<kGrade, 4, D / 8>(
        [&](int step) { return rows_.template left<kGrade>(step); },
        [&](int n, int step) { return right_at(8 * n, step); });
  }

  /// -= x y^T, x these rows' of 32 tokens, y (D, 32) in shared memory; two tiles of 8 columns at a
  /// time, since a sum takes three times its registers.
  __device__ void subtract_product(const RowTiles<4>& x, const SplitRows<32>& y) {
#pragma unroll
    for (int group = 0; group < D / 8; group += 2) {
      const auto part = row_product<Grade::float32, 2, 4>(
          [&](int step) { return x.left<Grade::float32>(step); },
          [&](int n, int step) { return y.right<Grade::float32>(8 * (group + n), step); });
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) rows_.values[group + n][e] -= part.values[n][e];
      }
    }
  }

 private:
  int first_;
  RowTiles<D / 8> rows_;
};

/// A chunk in shared memory.
template <int D>
struct RowChunkTiles {
  static constexpr int C = 32;
  static constexpr int kOfW = D + 4;
  static constexpr int kGram = ChunkShape<D>::kGram;
  alignas(16) float u[C * SplitRows<D>::kStride];
  alignas(16) float coming[C * D];                 // the next chunk's u
  alignas(16) float z[D * SplitRows<C>::kStride];  // channels as rows
  alignas(16) float w[C * kOfW];
  alignas(16) float gram[C * kGram];
  // By chunk modulo 2, as in ChunkTiles.
  float before[2][C], after[2][C], pivots[2][C];

  __device__ SplitRows<D> split_u() { return {u}; }
  __device__ SplitRows<C> split_z() { return {z}; }
};

/// The steps of a chunk.
template <int D>
struct RowChunk {
  static constexpr int C = RowChunkTiles<D>::C;
  static constexpr int kRowWarps = D / 16;
  static constexpr int kRowThreads = 32 * kRowWarps;
  static constexpr int kThreads = kRowThreads + 32;
  using Tiles = RowChunkTiles<D>;

  /// Starts copying the tokens from `first` on to tiles.coming; split() waits for them. A row
  /// thread splits what it has copied, so that no barrier is between.
  __device__ static void load_directions(Tiles& tiles, const TokenSource& source, const float* lane,
                                         int first, int end) {
    each_quad([&](int token, int channel) {
      // A copy of nothing still names an address: one that exists.
      const bool exists = first + token < end;
      const float* from = exists ? lane + (first + token) * source.view.token : lane;
      float* to = tiles.coming + token * D + channel;
      if (source.wide) {
        const bool valid = exists && channel < source.width;
        copy_async_16(to, valid ? from + channel : lane, valid);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const bool valid = exists && channel + e < source.width;
          copy_async_4(to + e, valid ? from + channel + e : lane, valid);
        }
      }
    });
    close_group();
  }
  __device__ static void split_directions(Tiles& tiles) {
    wait_for_groups<0>();
    const SplitRows<D> u = tiles.split_u();
    each_quad([&](int token, int channel) {
      const float4 x = *reinterpret_cast<const float4*>(tiles.coming + token * D + channel);
      u.put_at(token, channel, x.x, x.y);
      u.put_at(token, channel + 2, x.z, x.w);
    });
  }

  /// 1
  __device__ static RowTiles<4> multiply_directions(const MatrixRows<D>& matrix, int first_row,
                                                    Tiles& tiles, int parity) {
    const SplitRows<D> u = tiles.split_u();
    RowTiles<4> w = matrix.template multiply<Grade::float32>(
        [&](int token, int step) { return u.template right<Grade::float32>(token, step); });
    const float* before = tiles.before[parity];
    if (before[C - 1] > 0.0F) {
      const TilePlace at;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          w.values[n][e] = fmaf(before[8 * n + at.column + e % 2],
                                u.transposed(8 * n, e % 2, first_row, e / 2), w.values[n][e]);
        }
      }
    }
    w.each(first_row, [&](int i, int t, float value) { tiles.w[t * Tiles::kOfW + i] = value; });
    return w;
  }

  /// The matrix of 2, its lower triangle and what else lies in tiles of that.
  __device__ static void multiply_gram(int warp, Tiles& tiles) {
    const SplitRows<D> u = tiles.split_u();
    const PlainRows<Tiles::kOfW> w{tiles.w};
    // The factor warp, the last, takes the first tile.
    for (int job = (warp + 1) % (kRowWarps + 1); job < 3; job += kRowWarps + 1) {
      const int row = job == 0 ? 0 : 16;
      const int column = job == 2 ? 16 : 0;
      row_product<Grade::float32, 2, D / 8>(
          [&](int step) { return u.template left<Grade::float32>(row, step); },
          [&](int n, int step) { return w.template right<Grade::float32>(column + 8 * n, step); })
          .each(row, [&](int t, int s, float value) {
            s += column;
            tiles.gram[t * Tiles::kGram + s] = s == t ? value + 1.0F : value;
          });
    }
  }

  /// 3: x <- x L^-T of 16 rows.
  __device__ static void divide(RowTiles<4>& x, Tiles& tiles) {
    WarpBlock blocks[2];
    exchange(x, blocks, [](float& value, float& block) { block = value; });
    divide_by_factor<2, Tiles::kGram>(blocks, tiles.gram);
    exchange(x, blocks, [](float& value, float& block) { value = block; });
  }
  /// Rows of a matrix (D, 32), split.
  __device__ static void put(const RowTiles<4>& x, int first_row, const SplitRows<C>& rows) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      rows.put(first_row, n, x.values[n][0], x.values[n][1]);
      rows.put(first_row + 8, n, x.values[n][2], x.values[n][3]);
    }
  }

 private:
  /// body(token, channel) for the quads of u that this row thread copies and splits.
  template <class Body>
  __device__ static void each_quad(const Body& body) {
#pragma unroll
    for (int n = 0; n < C * D / 4 / kRowThreads; ++n) {
      const int i = static_cast<int>(threadIdx.x) + n * kRowThreads;
      body(i / (D / 4), i % (D / 4) * 4);
    }
  }
  template <class Move>
  __device__ static void exchange(RowTiles<4>& x, WarpBlock (&blocks)[2], const Move& move) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) move(x.values[n][e], blocks[n / 2].part[n % 2][e]);
    }
  }
};

}  // namespace vla_bench::mixers::cuda
