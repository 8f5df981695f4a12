// Softmax attention backward in plain float32 for short sequences: one kernel, one thread block per
// lane; the numbers are the steps of softmax.h.
//
// Shared memory holds q, k, v and d_o of the whole lane, and then the weights p and the score
// gradients dx as 4 x 4 tiles of the lower triangle. That takes five products of tiles instead of
// the seven of softmax_backward.cu, in a single kernel:
//   scores: a thread computes one tile of x and dp and stores p, dx and its part of the rows' sums;
//   gradients: a thread sums four or eight channels of four tokens' dq, then of their dk (or of dv,
//     for an early and a late group of four tokens). That is T / 4 + 1 tiles for every thread, since
//     late tokens have long sums in dq and short ones in dk. The rounding errors of its rows' sums
//     of dx, which dq and dk both subtract, come out of the pass over dq.
// Every element has one writer and every sum a fixed order.
//
// Floor at B = 64, H = 4, T = 73, d = 32 on an H100 (132 multiprocessors, 128 multiply-adds a clock
// each, 1.75 GHz; 3.35 TB/s). 190 tiles of 16 pairs per lane, 5 d multiply-adds per pair, two lanes
// per multiprocessor: 7,600 clocks, 4.3 us. Eight (T, d) matrices per lane, 19 MB: 5.7 us from
// memory, less where they are still in L2. The blocks are a single wave, so little of the traffic
// overlaps the arithmetic: 10 us, plus the launch. Threads without a tile (66 of 256 in the scores)
// and warps whose four groups of tokens differ in length add about 2 us.
#include "mixers/softmax/softmax_backward_fma.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

constexpr int kThreads = 256;
/// Tokens along the side of a tile.
constexpr int kSide = 4;
constexpr int kMostTiles = kLongestLane / kSide;  // along the tokens
static_assert(kLongestLane % (2 * kSide) == 0);

/// A tile of the triangle in shared memory: dx and p, (4, 4) each, and the sums of the four rows of
/// dx. An odd number of quads, so that any eight consecutive tiles start in different banks.
constexpr int kScoreGradients = 0, kWeights = 16, kRowSums = 32, kTileFloats = 36;

/// Tile (row, column), column <= row, of the triangle.
__host__ __device__ constexpr int tile_index(int row, int column) {
  return row * (row + 1) / 2 + column;
}

/// Four tokens' rows are contiguous; a gap of one quad makes the same row of eight neighbouring
/// tiles start in different banks.
template <int kD>
constexpr int kTileRows = (kSide * kD) + 4;

/// The tile of multiply_rows: one thread, four rows with four rows.
template <int kD>
struct ScoreTile {
  static constexpr int kChannels = kD, kStride = kD;
  static constexpr int kTx = 1, kTy = 1, kRows = kSide, kCols = kSide;
  static constexpr int kUnroll = 2;
};

/// Sums of four tokens; a thread has the channels 4 (tx + kTx m) .. + 3.
template <int kD>
struct GradientTile {
  static constexpr int kStride = kD;
  static constexpr int kTx = kD / 4 < 8 ? kD / 4 : 8;
  static constexpr int kQuads = kD / (4 * kTx);
  /// Threads of two tiles of tokens, interleaved: threads 1 or 2 apart share either the tile or the
  /// channels, so that their 16-byte reads share an access.
  static constexpr int kPairThreads = 2 * kTx;
  /// Number of threads for dq and dk, rounded up to a warp; those for dv come after them.
  __host__ __device__ static constexpr int own_threads(int pairs) {
    return (pairs * kPairThreads + kWarp - 1) / kWarp * kWarp;
  }

  static_assert(kD % (4 * kTx) == 0);
  // One thread computes dv of two tiles of tokens: half as many threads.
  static_assert(own_threads(kMostTiles / 2) + (kMostTiles / 2 + 1) / 2 * kPairThreads <= kThreads);
};

template <class Tile>
struct Sums {
  float4 of[kSide][Tile::kQuads] = {};

  /// of[r] += sum over i of tile[r][i] * row i, or of tile[i][r] * row i.
  template <bool kTransposed>
  __device__ void add(const float* tile, const float* rows, int tx) {
    float4 factors[kSide];  // rows of the tile
    unrolled<kSide>([&](int i) { factors[i] = quad(tile + kSide * i); });
    unrolled<kSide, Tile::kQuads>([&](int i, int m) {
      const float4 x = quad(rows + i * Tile::kStride + 4 * (tx + Tile::kTx * m));
      unrolled<kSide>([&](int r) {
        const float factor = kTransposed ? component(factors[i], r) : component(factors[r], i);
        add_scaled(factor, x, of[r][m]);
      });
    });
  }
};

/// A block's shared memory: `tiles` groups of four tokens; tokens beyond the last are zero.
template <int kD>
struct LaneMemory {
  int tiles;
  float *q, *k, *v, *d_o;  // (tiles, kTileRows)
  float* triangle;         // (tile_index(tiles, 0), kTileFloats)
  QueryTerms* terms;       // (4 tiles)

  __device__ LaneMemory(float* memory, int tiles_) : tiles(tiles_) {
    const int rows = tiles * kTileRows<kD>;
    q = memory;
    k = q + rows;
    v = k + rows;
    d_o = v + rows;
    triangle = d_o + rows;
    terms = reinterpret_cast<QueryTerms*>(triangle + tile_index(tiles, 0) * kTileFloats);
  }
  __host__ __device__ static constexpr int floats(int tiles) {
    return tiles * (4 * kTileRows<kD> + 3 * kSide) + tile_index(tiles, 0) * kTileFloats;
  }

  __device__ float* tile(int row, int column) const {
    return triangle + tile_index(row, column) * kTileFloats;
  }
  __device__ static int row_offset(int token) {
    return token / kSide * kTileRows<kD> + token % kSide * kD;
  }
};

/// Shared memory of one of two blocks per multiprocessor; each also reserves a kilobyte.
constexpr int kHalfOfSharedBytes = (kSharedBytes + 1024) / 2 - 1024;

/// A thread's quads of the lane's rows: the same channels in every kRowsAtOnce-th token.
template <int kD>
struct ThreadQuads {
  static constexpr int kQuadsOfRow = kD / 4;
  static constexpr int kRowsAtOnce = kThreads / kQuadsOfRow;
  static constexpr int kRounds = (kLongestLane + kRowsAtOnce - 1) / kRowsAtOnce;
  int first, channel;

  __device__ ThreadQuads()
      : first(static_cast<int>(threadIdx.x) / kQuadsOfRow),
        channel(4 * (static_cast<int>(threadIdx.x) % kQuadsOfRow)) {}

  __device__ int token(int round) const { return first + round * kRowsAtOnce; }

  __device__ void copy(float* matrix, const LaneRows<const float>& rows, int tokens,
                       int tiles) const {
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      if (token(round) >= kSide * tiles) break;
      copy_quad(matrix + LaneMemory<kD>::row_offset(token(round)) + channel, rows, token(round),
                channel, tokens);
    }
  }
};

/// Step 2 of a tile; stores what the gradients need of it.
__device__ inline void store_tile(int row, int column, const QueryTerms* terms,
                                  float exponent_scale, float (&products)[kSide][kSide],
                                  float (&dp)[kSide][kSide], float* tile) {
  float sums[kSide];
  unrolled<kSide>([&](int r) {
    const int query = kSide * row + r;
    unrolled<kSide>([&](int c) {
      differentiate(kSide * column + c <= query, terms[query], exponent_scale, products[r][c],
                    dp[r][c]);
    });
    sums[r] = (dp[r][0] + dp[r][1]) + (dp[r][2] + dp[r][3]);
    *reinterpret_cast<float4*>(tile + kScoreGradients + kSide * r) =
        make_float4(dp[r][0], dp[r][1], dp[r][2], dp[r][3]);
    *reinterpret_cast<float4*>(tile + kWeights + kSide * r) =
        make_float4(products[r][0], products[r][1], products[r][2], products[r][3]);
  });
  *reinterpret_cast<float4*>(tile + kRowSums) = make_float4(sums[0], sums[1], sums[2], sums[3]);
}

/// Sums over the queries that see the keys of tile `own`, from the last query down, so that
/// neighbouring tiles of keys read the same queries at the same time. kPart is dx or p.
template <int kD, int kPart>
__device__ inline Sums<GradientTile<kD>> sum_over_queries(const LaneMemory<kD>& memory,
                                                          const float* rows, int own, int tx) {
  Sums<GradientTile<kD>> sums;
#pragma unroll 1
  for (int row = memory.tiles - 1; row >= own; --row) {
    sums.template add<true>(memory.tile(row, own) + kPart, rows + row * kTileRows<kD>, tx);
  }
  return sums;
}

/// dq and dk of the tokens of tile `own`.
template <int kD>
__device__ inline void write_dq_dk(const LaneMemory<kD>& memory, int own, int tx, int tokens,
                                   float score_scale, const LaneRows<float>& dq,
                                   const LaneRows<float>& dk) {
  using Tile = GradientTile<kD>;
  float4 rest = make_float4(0.0F, 0.0F, 0.0F, 0.0F);  // of the rows of dx
  const auto write = [&](const Sums<Tile>& sums, const float* diagonal,
                         const LaneRows<float>& gradient) {
    unrolled<kSide>([&](int r) {
      const int token = kSide * own + r;
      const float* row = diagonal + own * kTileRows<kD> + r * kD;
      if (token >= tokens) return;
      write_corrected<Tile>(
          sums.of[r], score_scale, component(rest, r),
          [&](int channel) { return quad(row + channel); }, gradient, token, tx);
    });
  };

  Sums<Tile> query_sums;
#pragma unroll 1
  for (int column = 0; column <= own; ++column) {
    const float* tile = memory.tile(own, column);
    query_sums.template add<false>(tile + kScoreGradients, memory.k + column * kTileRows<kD>, tx);
    add_scaled(1.0F, quad(tile + kRowSums), rest);
  }
  write(query_sums, memory.k, dq);                                                        // 1
  write(sum_over_queries<kD, kScoreGradients>(memory, memory.q, own, tx), memory.q, dk);  // 1
}

/// dv of the tokens of tile `own`.
template <int kD>
__device__ inline void write_dv(const LaneMemory<kD>& memory, int own, int tx, int tokens,
                                const LaneRows<float>& dv) {
  using Tile = GradientTile<kD>;
  const Sums<Tile> sums = sum_over_queries<kD, kWeights>(memory, memory.d_o, own, tx);  // 3
  unrolled<kSide>([&](int r) {
    if (kSide * own + r < tokens) write_row<Tile>(sums.of[r], dv, kSide * own + r, tx);
  });
}

/// Block (head, batch element).
template <int kD>
__global__ void __launch_bounds__(kThreads, 2) backward_whole_lane_kernel(const Backward args) {
  using Quads = ThreadQuads<kD>;
  const int thread = static_cast<int>(threadIdx.x);
  const BlockLane lane(args.dims);
  const int tokens = lane.tokens;
  const int tiles = (tokens + kSide - 1) / kSide;
  const LaneMemory<kD> memory(shared_memory(), tiles);
  const Quads quads;

  quads.copy(memory.q, lane.rows(args.q), tokens, tiles);
  quads.copy(memory.k, lane.rows(args.k), tokens, tiles);
  close_group();
  quads.copy(memory.d_o, lane.rows(args.d_o), tokens, tiles);
  quads.copy(memory.v, lane.rows(args.v), tokens, tiles);
  close_group();
  const LaneRows<const float> o = lane.rows(args.o);
  float4 o_quads[Quads::kRounds];
  unrolled<Quads::kRounds>([&](int round) {
    o_quads[round] = load_quad(o, quads.token(round), quads.channel, quads.token(round) < tokens);
  });
  if (thread < kSide * tiles) memory.terms[thread] = query_terms(args, lane, thread, 0.0F);

  // Four threads take a square of tiles, so that threads 1 or 2 apart share their keys or their
  // queries (GradientTile::kPairThreads); the squares follow row by row of their triangle.
  static_assert(kMostTiles / 2 * (kMostTiles / 2 + 1) / 2 * 4 <= kThreads);
  int square_row = 0, square_column = thread / 4;
  while (square_column > square_row) square_column -= ++square_row;
  const int row = 2 * square_row + thread % 4 / 2, column = 2 * square_column + thread % 2;
  const bool has_tile = row < tiles && column <= row;
  const float* keys = memory.k + column * kTileRows<kD>;
  const float* queries = memory.q + row * kTileRows<kD>;
  float products[kSide][kSide], dp[kSide][kSide];

  wait_for_groups<1>();
  __syncthreads();  // queries and keys have arrived
  if (has_tile) multiply_rows<ScoreTile<kD>>(queries, keys, 0, 0, products);  // 1
  wait_for_groups<0>();
  unrolled<Quads::kRounds>([&](int round) {
    // Reads d_o where this thread itself wrote it.
    const int token = quads.token(round);
    const bool inside = token < kSide * tiles;
    const float part =
        inside ? add_dot(quad(memory.d_o + LaneMemory<kD>::row_offset(token) + quads.channel),
                         o_quads[round], 0.0F)
               : 0.0F;
    const float delta = sum_over_threads<Quads::kQuadsOfRow>(part);
    if (inside && quads.channel == 0) memory.terms[token].delta = delta;
  });
  __syncthreads();  // d_o, values and D have arrived
  if (has_tile) {
    multiply_rows<ScoreTile<kD>>(memory.d_o + row * kTileRows<kD>,
                                 memory.v + column * kTileRows<kD>, 0, 0, dp);  // 3
    store_tile(row, column, memory.terms, args.exponent_scale, products, dp,
               memory.tile(row, column));  // 2
  }
  __syncthreads();  // the triangle is complete

  using Tile = GradientTile<kD>;
  const int pairs = (tiles + 1) / 2;
  const int dv_from = Tile::own_threads(pairs);
  const bool has_dv = thread >= dv_from;
  const int place = has_dv ? thread - dv_from : thread;
  const int tx = place % 2 + place / 4 % (Tile::kTx / 2) * 2;
  const int own = place / Tile::kPairThreads * 2 + place / 2 % 2;
  if (!has_dv) {
    if (own < tiles) {
      write_dq_dk(memory, own, tx, tokens, args.score_scale, lane.rows(args.dq),
                  lane.rows(args.dk));
    }
  } else if (own < pairs) {
    const int late = tiles - 1 - own;
    write_dv(memory, own, tx, tokens, lane.rows(args.dv));
    if (late > own) write_dv(memory, late, tx, tokens, lane.rows(args.dv));
  }
}

template <int kD>
void launch(cudaStream_t stream, const Backward& args) {
  using Memory = LaneMemory<kD>;
  constexpr int kMostBytes = Memory::floats(kMostTiles) * static_cast<int>(sizeof(float));
  static_assert(kMostBytes <= kHalfOfSharedBytes);
  const int tiles = static_cast<int>(cuda::tiles(args.dims.tokens, kSide));
  const int bytes = Memory::floats(tiles) * static_cast<int>(sizeof(float));
  VLA_CUDA(cudaFuncSetAttribute(backward_whole_lane_kernel<kD>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, kMostBytes));
  const dim3 grid = grid_of(args.dims, args.dims.tokens);
  backward_whole_lane_kernel<kD><<<grid, kThreads, bytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("backward_whole_lane_kernel");
}

}  // namespace

void backward_whole_lane(cudaStream_t stream, const Backward& args) {
  with_head_size<8, 16, 32, 64>(args.dims.d_h, [&]<int kD>() { launch<kD>(stream, args); });
}

}  // namespace vla_bench::mixers::softmax::cuda
