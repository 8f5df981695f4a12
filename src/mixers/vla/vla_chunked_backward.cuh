// A chunk of the backward of vla_chunked_cuda.h: steps 7 to 11 of vla_chunked.h by a block, and the
// elements of 15.
#pragma once

#include "mixers/vla/lower_inverse.cuh"
#include "mixers/vla/vla_chunked.cuh"

namespace vla_bench::mixers::cuda {

template <int D>
struct BackwardShape {
  static constexpr int kTokens = D < 128 ? 32 : 16;
  static constexpr int kWarps = D < 64 ? 8 : 16;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks = D < 64 ? 2 : 1;  // of a multiprocessor
  static constexpr int kStride = ChunkShape<D>::kAlong;
  static constexpr int kGram = kTokens + 4;
  static constexpr int kBuffers = D < 128 ? 2 : 1;  // of a chunk's tokens
};

/// Between segments, (lanes, segments, D, D) each.
struct GradientJoin {
  int segments;
  float* F;      // F^T
  float* local;  // G at the entry with G = 0 behind
  float* behind;
};

struct ChunksBackwardArgs {
  SegmentArgs segment;  // and u
  TokenSource k, w, db;
  const float* delta;
  const float* ends;
  TokenTarget du, dk;
  GradientJoin join;
};

/// A chunk's tokens.
template <int D>
struct BackwardTokens {
  static constexpr int kTile = BackwardShape<D>::kTokens * BackwardShape<D>::kStride;
  alignas(16) float u[kTile];
  alignas(16) float k[kTile];
  alignas(16) float z[kTile];
  alignas(16) float db[kTile];
  alignas(16) float delta[BackwardShape<D>::kTokens];
};

template <int D>
struct BackwardTiles {
  using Shape = BackwardShape<D>;
  static constexpr int C = Shape::kTokens;
  static constexpr int kMatrix = D * Shape::kStride;
  static constexpr int kTile = BackwardTokens<D>::kTile;
  static constexpr int kGram = C * Shape::kGram;
  alignas(16) float matrix[kMatrix];  // A; in elements F^T
  alignas(16) float G[kMatrix];
  BackwardTokens<D> tokens[Shape::kBuffers];
  alignas(16) float dz[kTile];
  alignas(16) float dw[kTile];        // Y, then dW
  alignas(16) float scaled_u[kTile];  // elements: (u L^-T)^T
  alignas(16) float read_F[kTile];    // elements: Z^T F^T
  alignas(16) float L[kGram];
  alignas(16) float inverse[kGram];  // L^-1
  alignas(16) float k_z[kGram];      // tril(k^T Z); then R L^-1
  alignas(16) float db_z[kGram];     // tril(db^T Z); then dM L
  alignas(16) float R[kGram];        // of 9; then dM
  float before[2][C], after[2][C];   // by chunk modulo 2: (per_eps times) nudges since the entry
};

/// Against time through a segment. kLocal: an element of 15, else du and dk from what comes behind.
template <int D, Grade kGrade, bool kLocal>
class ChunksBackward {
 public:
  __device__ ChunksBackward(const ChunksBackwardArgs& args, BackwardTiles<D>& tiles)
      : args_(args),
        tiles_(tiles),
        segment_(args.segment, static_cast<int>(blockIdx.x) + (kLocal ? 1 : 0)),
        batch_(segment_.lane / args.segment.heads),
        head_(segment_.lane % args.segment.heads),
        matrix_((static_cast<Index>(segment_.lane) * args.segment.segments + segment_.index) * D *
                D) {}

  __device__ void run() {
    int parity = 0;
    int first = segment_.first + (segment_.end - segment_.first - 1) / C * C;
    start();
    load(parity, first);
    wait_for_groups<0>();
    __syncthreads();
    for (; first >= segment_.first; first -= C, parity ^= 1) step(first, parity);
    if constexpr (kLocal) finish();
  }

 private:
  using Shape = BackwardShape<D>;
  static constexpr int C = Shape::kTokens;
  static constexpr int kWarps = Shape::kWarps;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kLowerTiles = C / 16 * (C / 16 + 1) / 2;
  static constexpr int kWideTiles = C / 16 * (D / 16);

  __device__ static Matrix wide(float* data) { return {data, Shape::kStride, 1}; }
  __device__ static Matrix gram(float* data) { return {data, Shape::kGram, 1}; }
  __device__ const PenaltySettings& settings() const { return args_.segment.settings; }
  __device__ BackwardTokens<D>& tokens(int parity) {
    return tiles_.tokens[Shape::kBuffers == 2 ? parity : 0];
  }

  __device__ void start() {
    const bool last = segment_.index + 1 == args_.segment.segments;
    for (int i = static_cast<int>(threadIdx.x); i < D * D; i += kThreads) {
      const int at = i / D * Shape::kStride + i % D;
      if constexpr (kLocal) {
        tiles_.matrix[at] = i / D == i % D ? 1.0F : 0.0F;
        tiles_.G[at] = 0.0F;
      } else {
        tiles_.matrix[at] = args_.ends[matrix_ + i];
        tiles_.G[at] = last ? 0.0F : args_.join.behind[matrix_ + i];
      }
    }
  }
  __device__ void finish() {
    for (int i = static_cast<int>(threadIdx.x); i < D * D; i += kThreads) {
      const int at = i / D * Shape::kStride + i % D;
      args_.join.F[matrix_ + i] = tiles_.matrix[at];
      args_.join.local[matrix_ + i] = tiles_.G[at];
    }
  }

  /// Starts the copies of a chunk and counts its nudges.
  __device__ void load(int parity, int first) {
    BackwardTokens<D>& to = tokens(parity);
    const auto each = [&](float* tile, const TokenSource& source) {
      load_tokens<C, D, Shape::kStride>(tile, source, source.view.lane(batch_, head_), first,
                                        segment_.end);
    };
    each(to.u, args_.segment.u);
    each(to.k, args_.k);
    each(to.z, args_.w);
    each(to.db, args_.db);
    if (static_cast<int>(threadIdx.x) < C) {
      const int t = static_cast<int>(threadIdx.x);
      const bool valid = first + t < segment_.end;
      const Index token = static_cast<Index>(batch_) * args_.segment.tokens + first + t;
      copy_async_4(&to.delta[t],
                   valid ? args_.delta + token * args_.segment.heads + head_ : args_.delta, valid);
    }
    close_group();
    count_nudges<C>(settings(), first, args_.segment.tokens, tiles_.before[parity],
                    tiles_.after[parity]);
  }

  __device__ void step(int first, int parity) {
    const Team block = Team::block();
    const bool more = first > segment_.first;
    if (Shape::kBuffers == 2 && more) load(parity ^ 1, first - C);
    read_tokens(block, first, parity);
    __syncthreads();
    const bool floored = any_floored(first, parity);
    if (block.rank == 0) {
      invert_lower<C, Shape::kGram>(tiles_.L, tiles_.inverse);
    } else {
      const Team beside = {block.rank - 1, kWarps - 1};
      add_directions_to_dz(beside, parity);
      if constexpr (!kLocal) write_dk(beside, first, parity);
    }
    __syncthreads();
    divide(block, parity);
    __syncthreads();
    if constexpr (kLocal) extend_F(block);
    if (floored) {
      find_dm_by_pivots(block, first, parity);
    } else {
      find_dm(block);
    }
    __syncthreads();
    finish_dw(block, parity);
    __syncthreads();
    if constexpr (!kLocal) write_du(block, first, parity);
    update_G(block, parity);
    if (Shape::kBuffers == 2) wait_for_groups<0>();
    __syncthreads();
    if (Shape::kBuffers == 1 && more) {
      load(parity ^ 1, first - C);
      wait_for_groups<0>();
      __syncthreads();
    }
  }

  /// body(WarpTile, row, column) for the 16 x 16 tiles of (M, N), kLower: those that touch the
  /// lower triangle, dealt to the team from its member `from` on (modulo its size), so that
  /// products of one step share it.
  template <int M, int N, bool kLower, class Body>
  __device__ static void each_tile(Team team, int from, const Body& body) {
    const Team turned = {(team.rank + team.size - from % team.size) % team.size, team.size};
    const auto run = [&](int row, int column) {
      WarpTile<1, 2> tile;
      body(tile, 16 * row, 16 * column);
    };
    if constexpr (kLower) {
      for_lower_tiles<M / 16>(turned, run);
    } else {
      for_tiles<M / 16, N / 16>(turned, run);
    }
  }

  /// out = tril(x^T y) of tokens x and y.
  __device__ static void find_gram(Team team, int from, float* x, float* y, float* out,
                                   float sign = 1.0F) {
    each_tile<C, C, true>(team, from, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(wide(x).from(row, 0), wide(y).transposed().from(0, column),
                                        {0, D});
      tile.each_pair(row, column, [&](int t, int s, float a, float b) {
        put_pair(gram(out), t, s, s <= t ? sign * a : 0.0F, s + 1 <= t ? sign * b : 0.0F);
      });
    });
  }
  __device__ static void put_pair(const Matrix& out, int i, int j, float x, float y) {
    *reinterpret_cast<float2*>(&out(i, j)) = make_float2(x, y);
  }
  /// body(i, j, value) for the tile's elements in the lower triangle.
  template <class Body>
  __device__ static void each_lower(const WarpTile<1, 2>& tile, int row, int column,
                                    const Body& body) {
    tile.each_pair(row, column, [&](int i, int j, float x, float y) {
      if (j <= i) body(i, j, x);
      if (j + 1 <= i) body(i, j + 1, y);
    });
  }

  /// L; tril(k^T Z), tril(db^T Z); A from the chunk's exit to its entry, or Z^T F^T; -2 G Z of 8.
  __device__ void read_tokens(Team team, int first, int parity) {
    BackwardTokens<D>& in = tokens(parity);
    each_tile<C, C, true>(team, 0, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<Grade::float32>(wide(in.u).from(row, 0),
                                                wide(in.z).transposed().from(0, column), {0, D});
      const auto entry = [&](int t, int s, float x) {
        if (s != t) return s < t ? x : 0.0F;
        return first + t < segment_.end ? sqrtf(at_least(in.delta[t], settings().stab_eps)) : 1.0F;
      };
      tile.each_pair(row, column, [&](int t, int s, float x, float y) {
        put_pair(gram(tiles_.L), t, s, entry(t, s, x), entry(t, s + 1, y));
      });
    });
    find_gram(team, kLowerTiles, in.k, in.z, tiles_.k_z);
    find_gram(team, 2 * kLowerTiles, in.db, in.z, tiles_.db_z);
    multiply_rows(team, 3 * kLowerTiles, in.z, tiles_.G, tiles_.dz, -2.0F);
    constexpr int kLast = 3 * kLowerTiles + kWideTiles;
    if constexpr (kLocal) {
      multiply_rows(team, kLast, in.z, tiles_.matrix, tiles_.read_F, 1.0F);
      return;
    }
    const float nudges = tiles_.after[parity][C - 1];
    const Matrix A = wide(tiles_.matrix);
    each_tile<D, D, true>(team, kLast, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<Grade::float32>(wide(in.z).transposed().from(row, 0),
                                                wide(in.z).from(0, column), {0, C});
      each_lower(tile, row, column, [&](int i, int j, float x) {
        A(i, j) = A(j, i) = A(i, j) + x - (i == j ? nudges : 0.0F);
      });
    });
  }
  /// out = scale x^T M of tokens x.
  __device__ static void multiply_rows(Team team, int from, float* x, float* matrix, float* out,
                                       float scale) {
    each_tile<C, D, false>(team, from, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(wide(x).from(row, 0), wide(matrix).from(0, column), {0, D});
      tile.each_pair(row, column, [&](int t, int i, float a, float b) {
        put_pair(wide(out), t, i, scale * a, scale * b);
      });
    });
  }

  /// 8: - db tril(k^T Z) - k tril(db^T Z)
  __device__ void add_directions_to_dz(Team team, int parity) {
    BackwardTokens<D>& in = tokens(parity);
    each_tile<C, D, false>(team, 0, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(gram(tiles_.k_z).transposed().from(row, 0),
                                        wide(in.db).from(0, column), {row, C});
      tile.template add_product<kGrade>(gram(tiles_.db_z).transposed().from(row, 0),
                                        wide(in.k).from(0, column), {row, C});
      tile.each_pair(row, column, [&](int t, int i, float x, float y) {
        float2& pair = *reinterpret_cast<float2*>(&wide(tiles_.dz)(t, i));
        pair = make_float2(pair.x - x, pair.y - y);
      });
    });
  }

  /// target = A x + x diag(nudges) + sign Z lower^T of tokens x: 7, and du of 10 with W dM^T as
  /// Z (dM L)^T.
  __device__ void write_product(Team team, int from, int first, int parity, float* x,
                                const float* nudges, float* lower, float sign,
                                const TokenTarget& target) {
    float* to = target.view.lane(batch_, head_);
    each_tile<C, D, false>(team, from, [&](WarpTile<1, 2>& tile, int row, int column) {
      WarpTile<1, 2> along;
      tile.template add_product<kGrade>(wide(x).from(row, 0), wide(tiles_.matrix).from(0, column),
                                        {0, D});
      along.template add_product<kGrade>(gram(lower).from(row, 0),
                                         wide(tokens(parity).z).from(0, column), {0, row + 16});
      const auto write = [&](int t, int i, float value, float part) {
        if (first + t >= segment_.end || i >= target.width) return;
        to[(first + t) * target.view.token + i] =
            fmaf(sign, part, fmaf(nudges[t], wide(x)(t, i), value));
      };
#pragma unroll
      for (int s = 0; s < 2; ++s) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int lane = static_cast<int>(threadIdx.x) % 32;
          write(row + lane / 4 + e / 2 * 8, column + 8 * s + lane % 4 * 2 + e % 2,
                tile.values[0][s][e], along.values[0][s][e]);
        }
      }
    });
  }
  __device__ void write_dk(Team team, int first, int parity) {
    write_product(team, kWideTiles, first, parity, tokens(parity).db, tiles_.after[parity],
                  tiles_.db_z, -1.0F, args_.dk);
  }
  __device__ void write_du(Team team, int first, int parity) {
    write_product(team, 0, first, parity, tiles_.dw, tiles_.before[parity], tiles_.db_z, 1.0F,
                  args_.du);
  }

  __device__ bool any_floored(int first, int parity) {
    bool floored = false;
    const int t = static_cast<int>(threadIdx.x) % 32;
    if (t < C) floored = is_floored(first, parity, t);
    return __any_sync(0xFFFFFFFFU, floored) != 0;
  }
  __device__ bool is_floored(int first, int parity, int t) {
    return first + t < segment_.end && tokens(parity).delta[t] < settings().stab_eps;
  }

  /// Y of 8; R of 9, both triangles; an element's (u L^-T)^T.
  __device__ void divide(Team team, int parity) {
    BackwardTokens<D>& in = tokens(parity);
    each_tile<C, D, false>(team, 0, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(gram(tiles_.inverse).transposed().from(row, 0),
                                        wide(tiles_.dz).from(0, column), {row, C});
      tile.each_pair(row, column, [&](int t, int i, float x, float y) {
        put_pair(wide(tiles_.dw), t, i, x, y);
      });
    });
    each_tile<C, C, true>(team, kWideTiles, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(wide(tiles_.dz).from(row, 0),
                                        wide(in.z).transposed().from(0, column), {0, D});
      each_lower(tile, row, column,
                 [&](int i, int j, float x) { gram(tiles_.R)(i, j) = gram(tiles_.R)(j, i) = x; });
    });
    if constexpr (kLocal) {
      constexpr int kFrom = kWideTiles + kLowerTiles;
      each_tile<C, D, false>(team, kFrom, [&](WarpTile<1, 2>& tile, int row, int column) {
        tile.template add_product<kGrade>(gram(tiles_.inverse).from(row, 0),
                                          wide(in.u).from(0, column), {0, row + 16});
        tile.each_pair(row, column, [&](int t, int i, float x, float y) {
          put_pair(wide(tiles_.scaled_u), t, i, x, y);
        });
      });
    }
  }

  /// 15: F^T <- (I - (u L^-T) Z^T) F^T
  __device__ void extend_F(Team team) {
    each_tile<D, D, false>(team, C / 16 * (C / 16), [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(wide(tiles_.scaled_u).transposed().from(row, 0),
                                        wide(tiles_.read_F).from(0, column), {0, C});
      tile.each_pair(row, column, [&](int i, int j, float x, float y) {
        float2& pair = *reinterpret_cast<float2*>(&wide(tiles_.matrix)(i, j));
        pair = make_float2(pair.x - x, pair.y - y);
      });
    });
  }

  /// 9, no pivot at its floor; dM in the place of R.
  __device__ void find_dm(Team team) {
    each_tile<C, C, false>(team, 0, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(gram(tiles_.R).from(row, 0),
                                        gram(tiles_.inverse).from(0, column), {column, C});
      tile.each_pair(row, column, [&](int i, int j, float x, float y) {
        put_pair(gram(tiles_.k_z), i, j, x, y);
      });
    });
    __syncthreads();
    each_tile<C, C, true>(team, 0, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(gram(tiles_.inverse).transposed().from(row, 0),
                                        gram(tiles_.k_z).from(0, column), {row, C});
      const auto entry = [](int i, int j, float x) {
        if (j > i) return 0.0F;
        return i == j ? -0.5F * x : -x;
      };
      tile.each_pair(row, column, [&](int i, int j, float x, float y) {
        put_pair(gram(tiles_.R), i, j, entry(i, j, x), entry(i, j + 1, y));
      });
    });
  }

  /// 9, pivot by pivot, from dL in the place of tril(k^T Z).
  __device__ void find_dm_by_pivots(Team team, int first, int parity) {
    find_gram(team, 0, tiles_.dw, tokens(parity).z, tiles_.k_z, -1.0F);
    const Matrix L = gram(tiles_.L);
    const Matrix dL = gram(tiles_.k_z);
    const Matrix dM = gram(tiles_.R);
    __syncthreads();
    for (int j = C - 1; j >= 0; --j) {
      const int thread = static_cast<int>(threadIdx.x);
      if (thread < C) dM(thread, j) = thread > j ? dL(thread, j) / L(j, j) : 0.0F;
      __syncthreads();
      if (thread == 0 && !is_floored(first, parity, j)) {
        float d_pivot = dL(j, j);
        for (int i = j + 1; i < C; ++i) d_pivot = fmaf(-dM(i, j), L(i, j), d_pivot);
        dM(j, j) = d_pivot / (2.0F * L(j, j));
      }
      for (int at = thread; at < C * C; at += kThreads) {
        const int i = at / C;
        const int r = at % C;
        if (i > j && r < j) dL(i, r) = fmaf(-dM(i, j), L(j, r), dL(i, r));
      }
      __syncthreads();
      if (thread < j) {
        float value = fmaf(-2.0F * dM(j, j), L(j, thread), dL(j, thread));
        for (int i = j + 1; i < C; ++i) value = fmaf(-dM(i, j), L(i, thread), value);
        dL(j, thread) = value;
      }
      __syncthreads();
    }
  }

  /// 10: dW; and dM L.
  __device__ void finish_dw(Team team, int parity) {
    each_tile<C, D, false>(team, 0, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(gram(tiles_.R).transposed().from(row, 0),
                                        wide(tokens(parity).u).from(0, column), {row, C});
      tile.each_pair(row, column, [&](int t, int i, float x, float y) {
        float2& pair = *reinterpret_cast<float2*>(&wide(tiles_.dw)(t, i));
        pair = make_float2(pair.x + x, pair.y + y);
      });
    });
    if constexpr (kLocal) return;
    each_tile<C, C, true>(team, kWideTiles, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.template add_product<kGrade>(gram(tiles_.R).from(row, 0), gram(tiles_.L).from(0, column),
                                        {column, row + 16});
      tile.each_pair(row, column, [&](int i, int j, float x, float y) {
        put_pair(gram(tiles_.db_z), i, j, x, y);
      });
    });
  }

  /// 11
  __device__ void update_G(Team team, int parity) {
    BackwardTokens<D>& in = tokens(parity);
    const Matrix G = wide(tiles_.G);
    each_tile<D, D, true>(
        team, kLocal ? 0 : kWideTiles, [&](WarpTile<1, 2>& tile, int row, int column) {
          const auto add = [&](float* x, float* y) {
            tile.template add_product<kGrade>(wide(x).transposed().from(row, 0),
                                              wide(y).from(0, column), {0, C});
          };
          add(in.db, in.k);
          add(in.k, in.db);
          add(tiles_.dw, in.u);
          add(in.u, tiles_.dw);
          each_lower(tile, row, column,
                     [&](int i, int j, float x) { G(i, j) = G(j, i) = fmaf(0.5F, x, G(i, j)); });
        });
  }

  const ChunksBackwardArgs& args_;
  BackwardTiles<D>& tiles_;
  Segment segment_;
  int batch_, head_;
  Index matrix_;  // the segment's, in arrays of matrices
};

}  // namespace vla_bench::mixers::cuda
