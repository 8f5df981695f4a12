// Elements and the join of vla_segments_cuda.h.
#include "core/cuda/check.h"
#include "mixers/vla/vla_chunked.cuh"
#include "mixers/vla/vla_segments_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

/// Pivots of J below this share of its largest are left out: rounding, no direction.
constexpr float kLeastRoot = 1e-7F;

/// An element (D, D) each: E, C, and the rows of R^T.
template <int D>
struct ElementView {
  float *E, *C, *R;
  __device__ ElementView(float* elements, int number)
      : E(elements + static_cast<Index>(number) * 3 * D * D), C(E + D * D), R(C + D * D) {}
};

struct ElementArgs {
  SegmentArgs segment;
  float* entries;   // (lanes, segments, D, D)
  float* elements;  // (lanes, segments, 3, D, D)
};

/// E and J take in a chunk's tokens beside the next chunk's factorisation, if shared memory has
/// room for a Y of their own; otherwise between chunks, with Y in the place of W.
template <int D>
inline constexpr bool kBesideFactor = D < 128;

template <int D>
struct ElementTiles {
  static constexpr int kTokenTile = ChunkShape<D>::kTokens * ChunkShape<D>::kAcross;
  alignas(16) float matrix[D * ChunkShape<D>::kAlong];
  ChunkTiles<D> chunk;
  alignas(16) float E[D * ChunkShape<D>::kAcross];
  alignas(16) float start[kTokenTile];  // u^T E
  alignas(16) float y[kBesideFactor<D> ? kTokenTile : 4];
};

/// J's lower triangle of 16 x 16 tiles, in the registers of a team of kWarps.
template <int D, int kWarps>
struct Accumulator {
  static constexpr int kTiles = D / 16 * (D / 16 + 1) / 2;
  static constexpr int kOwn = (kTiles + kWarps - 1) / kWarps;
  WarpTile<1, 2> own[kOwn];

  /// body(tile, row, column) for the tiles of this warp.
  template <class Body>
  __device__ void each(int rank, const Body& body) {
#pragma unroll
    for (int n = 0; n < kOwn; ++n) {
      int row = 0, column = rank + n * kWarps;
      if (column >= kTiles) continue;
      while (column > row) column -= ++row;
      body(own[n], row, column);
    }
  }
};

template <int D>
class Element {
 public:
  __device__ Element(const ElementArgs& args, ElementTiles<D>& tiles)
      : args_(args),
        tiles_(tiles),
        segment_(args.segment, static_cast<int>(blockIdx.x)),
        lane_data_(args.segment.u.view.lane(segment_.lane / args.segment.heads,
                                            segment_.lane % args.segment.heads)),
        accumulates_(segment_.index > 0) {}

  /// The first segment has no element: its A is known.
  __device__ void run() {
    load(0, segment_.first);
    start();
    count_nudges<C>(settings(), segment_.first, args_.segment.tokens, chunk().before[0],
                    chunk().after[0]);
    wait_for_groups<0>();
    __syncthreads();
    int parity = 0;
    for (int first = segment_.first; first < segment_.end; first += C, parity ^= 1) {
      step(first, parity);
    }
    if (kBesideFactor<D> && accumulates_ && own_team().rank >= 0) take_in(own_team());
    __syncthreads();
    finish();
  }

 private:
  using Shape = ChunkShape<D>;
  using Steps = ChunkSteps<D>;
  static constexpr int C = Shape::kTokens;
  static constexpr int kBeside = Shape::kWarps - Shape::kFactorWarps;
  static constexpr int kOwners = kBesideFactor<D> ? kBeside : Shape::kWarps;  // of J
  static constexpr int kFactorBarrier = 1;                                    // and 2
  static constexpr int kBesideBarrier = 3;

  __device__ ChunkTiles<D>& chunk() { return tiles_.chunk; }
  __device__ const PenaltySettings& settings() const { return args_.segment.settings; }
  __device__ float* y() { return kBesideFactor<D> ? tiles_.y : chunk().w; }
  __device__ static Team own_team() {
    return {Team::block().rank - (Shape::kWarps - kOwners), kOwners};
  }

  __device__ void load(int parity, int first) {
    load_tokens<C, D, Shape::kAlong>(chunk().u[parity], args_.segment.u, lane_data_, first,
                                     segment_.end);
    close_group();
  }

  __device__ void start() {
    for (int i = static_cast<int>(threadIdx.x); i < D * D; i += Shape::kThreads) {
      const int row = i / D;
      const bool diagonal = row == i % D;
      tiles_.matrix[row * Shape::kAlong + i % D] =
          diagonal && !accumulates_ ? settings().inverse_lambda : 0.0F;
      tiles_.E[row * Shape::kAcross + i % D] = diagonal ? 1.0F : 0.0F;
    }
  }

  __device__ void step(int first, int parity) {
    const Team block = Team::block();
    const Team beside = {block.rank - Shape::kFactorWarps, kBeside};
    Steps::multiply_directions(block, tiles_.matrix, chunk(), parity);
    __syncthreads();
    if (first + C < segment_.end) load(parity ^ 1, first + C);
    Steps::multiply_gram(block, chunk(), parity);
    __syncthreads();
    if (block.rank < Shape::kFactorWarps) {
      // Pivots are at least 1, whatever A enters.
      invert_factor<Shape::kFactorWarps, Shape::kGram, kFactorBarrier>(
          chunk().gram, settings().stab_eps, chunk().pivots[parity], block.rank);
    } else if (accumulates_) {
      if (kBesideFactor<D> && first > segment_.first) {
        take_in(beside);
        ops::cuda::sync_named(kBesideBarrier, 32 * kBeside);
      }
      multiply_by_E(beside, parity);
    }
    __syncthreads();
    Steps::divide(block, chunk(), chunk().w, chunk().z);
    if (kBesideFactor<D> && accumulates_) Steps::divide(block, chunk(), tiles_.start, y());
    __syncthreads();
    if (!kBesideFactor<D> && accumulates_) Steps::divide(block, chunk(), tiles_.start, y());
    Steps::update(block, tiles_.matrix, chunk(), chunk().after[parity][C - 1]);
    count_nudges<C>(settings(), first + C, args_.segment.tokens, chunk().before[parity ^ 1],
                    chunk().after[parity ^ 1]);
    wait_for_groups<0>();
    __syncthreads();
    if (!kBesideFactor<D> && accumulates_) {
      take_in(block);
      __syncthreads();
    }
  }

  /// 12: u^T E
  __device__ void multiply_by_E(Team team, int parity) {
    for_tiles<Steps::kRows, Steps::kAcrossTiles>(team, [&](int row, int column) {
      WarpTile<1, Steps::kWide> tile;
      tile.template add_product<Grade::float32>(
          Steps::along(chunk().u[parity]).from(16 * row, 0),
          Steps::across(tiles_.E).from(0, 8 * Steps::kWide * column), {0, D});
      tile.each_pair(16 * row, 8 * Steps::kWide * column, [&](int t, int i, float x, float y) {
        *reinterpret_cast<float2*>(&Steps::across(tiles_.start)(t, i)) = make_float2(x, y);
      });
    });
  }

  /// 12: E and J
  __device__ void take_in(Team team) {
    const Matrix z = Steps::across(chunk().z);
    const Matrix y = Steps::across(this->y());
    for_tiles<D / 16, Steps::kAcrossTiles>(team, [&](int row, int column) {
      WarpTile<1, Steps::kWide> tile;
      tile.template add_product<Grade::float32>(z.transposed().from(16 * row, 0),
                                                y.from(0, 8 * Steps::kWide * column), {0, C});
      tile.each_pair(16 * row, 8 * Steps::kWide * column, [&](int i, int j, float x0, float x1) {
        float2& pair = *reinterpret_cast<float2*>(&Steps::across(tiles_.E)(i, j));
        pair = make_float2(pair.x - x0, pair.y - x1);
      });
    });
    // Tensor cores cut their sums off towards 0, which adds up over chunks: they sum one chunk.
    J_.each(team.rank, [&](WarpTile<1, 2>& tile, int row, int column) {
      WarpTile<1, 2> squares;
      squares.template add_product<Grade::float32>(y.transposed().from(16 * row, 0),
                                                   y.from(0, 16 * column), {0, C});
      tile.add(squares);
    });
  }

  __device__ void finish() {
    const int number = segment_.lane * args_.segment.segments + segment_.index;
    const ElementView<D> element(args_.elements, number);
    float* C_out =
        accumulates_ ? element.C : args_.entries + (static_cast<Index>(number) + 1) * D * D;
    for (int i = static_cast<int>(threadIdx.x); i < D * D; i += Shape::kThreads) {
      C_out[i] = tiles_.matrix[i / D * Shape::kAlong + i % D];
      if (accumulates_) element.E[i] = tiles_.E[i / D * Shape::kAcross + i % D];
    }
    if (!accumulates_) return;
    __syncthreads();
    const Matrix J = Steps::along(tiles_.matrix);
    if (own_team().rank >= 0) {
      J_.each(own_team().rank, [&](WarpTile<1, 2>& tile, int row, int column) {
        const auto put = [&](int i, int j, float x) {
          if (j > i) return;
          J(i, j) = x;
          J(j, i) = x;
        };
        tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
          put(i, j, x);
          put(i, j + 1, y);
        });
      });
    }
    __syncthreads();
    find_root(element.R);
  }

  /// 13: R of R R^T = J, the largest pivot first; its columns so far, as rows, in the place of E. A
  /// thread sums a part of one row's product with the pivot's.
  __device__ void find_root(float* rows) {
    constexpr int kParts = Shape::kThreads / D;
    constexpr int kRows = 32 / kParts;  // of a warp
    constexpr int kStride = D + kRows;  // no bank twice
    float* R = tiles_.E;
    float(*diagonals)[D] = reinterpret_cast<float(*)[D]>(chunk().z);  // of two pivots, in turn
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int part = lane / kRows;
    const int row = static_cast<int>(threadIdx.x) / 32 * kRows + lane % kRows;
    if (part == 0) diagonals[0][row] = tiles_.matrix[row * (Shape::kAlong + 1)];
    __syncthreads();
    float least = 0.0F;
    int column = 0;
    for (; column < D; ++column) {
      const float* diagonal = diagonals[column % 2];
      const int pivot_row = largest_of(diagonal, lane);
      const float pivot = diagonal[pivot_row];
      if (column == 0) least = kLeastRoot * pivot;
      if (!(pivot > least)) break;
      float sum = 0.0F;
#pragma unroll 4
      for (int k = part; k < column; k += kParts) {
        sum = fmaf(R[k * kStride + pivot_row], R[k * kStride + row], sum);
      }
#pragma unroll
      for (int offset = kRows; offset < 32; offset *= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFFU, sum, offset);
      }
      if (part == 0) {
        const float left = diagonal[row];
        const bool done = !(left > 0.0F);  // it has been a pivot; or nothing is left of it
        const bool is_pivot = row == pivot_row;
        const float value = tiles_.matrix[pivot_row * Shape::kAlong + row] - sum;
        const float x = done ? 0.0F : inverse_root(pivot) * (is_pivot ? pivot : value);
        R[column * kStride + row] = x;
        rows[column * D + row] = x;
        diagonals[(column + 1) % 2][row] = done || is_pivot ? -1.0F : fmaf(-x, x, left);
      }
      __syncthreads();
    }
    for (int i = column * D + static_cast<int>(threadIdx.x); i < D * D; i += Shape::kThreads) {
      rows[i] = 0.0F;
    }
  }
  /// The place of the largest number, to 16 bits of it, by a warp; D - 1 or less.
  __device__ static int largest_of(const float* numbers, int lane) {
    unsigned largest = 0;  // the high bits of a number, then its place
    for (int i = lane; i < D; i += 32) {
      const unsigned bits = (__float_as_uint(numbers[i]) & ~127U) | static_cast<unsigned>(i);
      if (numbers[i] > 0.0F) largest = max(largest, bits);
    }
    return static_cast<int>(__reduce_max_sync(0xFFFFFFFFU, largest) & 127U);
  }

  const ElementArgs& args_;
  ElementTiles<D>& tiles_;
  Segment segment_;
  const float* lane_data_;
  bool accumulates_;
  Accumulator<D, kOwners> J_;
};

template <int D>
__global__ void __launch_bounds__(ChunkShape<D>::kThreads, 1)
    penalty_elements_kernel(const ElementArgs args) {
  extern __shared__ float4 memory[];
  Element<D>(args, *reinterpret_cast<ElementTiles<D>*>(memory)).run();
}

/// The join for d up to 64, where two elements fit into shared memory. In the form
///   A_out = C + E A E^T - V^T V,  V = L^-1 R^T A E^T,  L L^T = I + R^T A R
/// little waits for the factorisation: a step's chain is two products before it and two behind.
template <int D>
struct JoinShape {
  static constexpr int kWarps = D == 64 ? 16 : D / 4;
  static constexpr int kThreads = 32 * kWarps;
};

template <int D>
struct JoinTiles {
  static constexpr int kMatrix = D * ChunkShape<D>::kAlong;
  static constexpr int kReadAcross = D * ChunkShape<D>::kAcross;
  struct Element {
    alignas(16) float E[kMatrix];
    alignas(16) float C[kMatrix];
    alignas(16) float R[kMatrix];  // R^T
  };
  alignas(16) float matrix[kMatrix];
  Element elements[2];
  alignas(16) float EA[kMatrix];
  alignas(16) float RA[kReadAcross];   // R^T A, then V
  alignas(16) float RAE[kReadAcross];  // R^T A E^T
  alignas(16) float gram[kMatrix];     // I + R^T A R, then L^-1
  float pivots[D];
};

template <int D>
class Join {
 public:
  static constexpr int kThreads = JoinShape<D>::kThreads;

  __device__ Join(const ElementArgs& args, JoinTiles<D>& tiles)
      : args_(args), tiles_(tiles), first_(static_cast<int>(blockIdx.x) * args.segment.segments) {}

  __device__ void run() {
    const int last = args_.segment.segments - 2;
    load(tiles_.matrix, entry(1));
    load_element(1);
    wait_for_groups<0>();
    __syncthreads();
    for (int i = 1; i <= last; ++i) {
      if (i < last) load_element(i + 1);
      pass(tiles_.elements[i % 2]);
      wait_for_groups<0>();
      __syncthreads();
      float* out = entry(i + 1);
      for (int at = static_cast<int>(threadIdx.x); at < D * D; at += kThreads) {
        out[at] = tiles_.matrix[at / D * kAlong + at % D];
      }
    }
  }

 private:
  using Steps = ChunkSteps<D>;
  using Tiles = JoinTiles<D>;
  static constexpr int kWarps = JoinShape<D>::kWarps;
  static constexpr int kAlong = ChunkShape<D>::kAlong;
  static constexpr int kFactorWarps = D / 16;
  static_assert(kFactorWarps < kWarps);

  __device__ float* entry(int segment) {
    return args_.entries + (static_cast<Index>(first_) + segment) * D * D;
  }
  __device__ static void load(float* to, const float* from) {
    for (int i = static_cast<int>(threadIdx.x); i < D * D / 4; i += kThreads) {
      copy_async_16(to + i / (D / 4) * kAlong + i % (D / 4) * 4, from + 4 * i, true);
    }
    close_group();
  }
  __device__ void load_element(int segment) {
    const ElementView<D> from(args_.elements, first_ + segment);
    auto& to = tiles_.elements[segment % 2];
    load(to.E, from.E);
    load(to.C, from.C);
    load(to.R, from.R);
  }

  /// 13
  __device__ void pass(typename Tiles::Element& element) {
    const Team block = Team::block();
    multiply_by_A(block, element);
    __syncthreads();
    find_gram(block, element);
    __syncthreads();
    if (block.rank < kFactorWarps) {
      invert_factor<kFactorWarps, kAlong, 1>(tiles_.gram, 0.0F, tiles_.pivots, block.rank);
    } else {
      multiply_by_E({block.rank - kFactorWarps, kWarps - kFactorWarps}, element);
    }
    __syncthreads();
    divide(block);
    __syncthreads();
    finish_A(block, element);
  }

  /// E A and R^T A
  __device__ void multiply_by_A(Team team, typename Tiles::Element& element) {
    constexpr int kWide = D < 32 ? D / 8 : 4;
    constexpr int kHalf = D / 16 * (D / (8 * kWide));
    for (int number = team.rank; number < 2 * kHalf; number += team.size) {
      const bool is_E = number < kHalf;
      const int row = 16 * (number % (D / 16));
      const int column = 8 * kWide * (number % kHalf / (D / 16));
      const Matrix left = Steps::along(is_E ? element.E : element.R);
      const Matrix out = is_E ? Steps::along(tiles_.EA) : Steps::along(tiles_.RA);
      WarpTile<1, kWide> tile;
      tile.template add_product<Grade::float32>(
          left.from(row, 0), Steps::along(tiles_.matrix).transposed().from(0, column), {0, D});
      tile.each_pair(row, column, [&](int i, int j, float x, float y) { put(out, i, j, x, y); });
    }
  }

  __device__ void find_gram(Team team, typename Tiles::Element& element) {
    const Matrix out = Steps::along(tiles_.gram);
    for_lower_tiles<D / 16>(team, [&](int row, int column) {
      product(Steps::along(tiles_.RA).from(16 * row, 0),
              Steps::along(element.R).transposed().from(0, 16 * column), {0, D}, 16 * row,
              16 * column, [&](int i, int j, float x, float y) {
                put(out, i, j, i == j ? x + 1.0F : x, i == j + 1 ? y + 1.0F : y);
              });
    });
  }

  /// R^T A E^T; C + E A E^T, its lower triangle, in the place of C.
  __device__ void multiply_by_E(Team team, typename Tiles::Element& element) {
    const Matrix right = Steps::along(element.E).transposed();
    const Matrix C = Steps::along(element.C);
    for_tiles<D / 16, D / 16>(team, [&](int row, int column) {
      product(Steps::along(tiles_.RA).from(16 * row, 0), right.from(0, 16 * column), {0, D},
              16 * row, 16 * column,
              [&](int i, int j, float x, float y) { put(Steps::across(tiles_.RAE), i, j, x, y); });
    });
    const Team reversed = {team.size - 1 - team.rank, team.size};
    for_lower_tiles<D / 16>(reversed, [&](int row, int column) {
      product(Steps::along(tiles_.EA).from(16 * row, 0), right.from(0, 16 * column), {0, D},
              16 * row, 16 * column,
              [&](int i, int j, float x, float y) { put(C, i, j, C(i, j) + x, C(i, j + 1) + y); });
    });
  }

  /// V
  __device__ void divide(Team team) {
    for_tiles<D / 16, D / 16>(team, [&](int row, int column) {
      product(Steps::along(tiles_.gram).from(16 * row, 0),
              Steps::across(tiles_.RAE).from(0, 16 * column), {0, 16 * (row + 1)}, 16 * row,
              16 * column,
              [&](int i, int j, float x, float y) { put(Steps::across(tiles_.RA), i, j, x, y); });
    });
  }

  __device__ void finish_A(Team team, typename Tiles::Element& element) {
    const Matrix V = Steps::across(tiles_.RA);
    const Matrix A = Steps::along(tiles_.matrix);
    const Matrix C = Steps::along(element.C);
    const auto set = [&](int i, int j, float x) {
      if (j <= i) A(i, j) = A(j, i) = C(i, j) - x;
    };
    for_lower_tiles<D / 16>(team, [&](int row, int column) {
      product(V.transposed().from(16 * row, 0), V.from(0, 16 * column), {0, D}, 16 * row,
              16 * column, [&](int i, int j, float x, float y) {
                set(i, j, x);
                set(i, j + 1, y);
              });
    });
  }

  /// done(i, j, value_ij, value_ij+1) of a 16 x 16 tile of a b.
  template <class Done>
  __device__ static void product(const Matrix& a, const Matrix& b, InnerRange inner, int row,
                                 int column, const Done& done) {
    WarpTile<1, 2> tile;
    tile.template add_product<Grade::float32>(a, b, inner);
    tile.each_pair(row, column, done);
  }
  __device__ static void put(const Matrix& out, int i, int j, float x, float y) {
    *reinterpret_cast<float2*>(&out(i, j)) = make_float2(x, y);
  }

  const ElementArgs& args_;
  Tiles& tiles_;
  int first_;  // the lane's first segment among all
};

/// At d = 128 three matrices fill shared memory: A, and two that serve one step after the other.
template <>
struct JoinTiles<128> {
  static constexpr int D = 128;
  alignas(16) float matrix[D * ChunkShape<D>::kAlong];
  alignas(16) float r[D * ChunkShape<D>::kAlong];   // R^T, I + R^T W, L^-1; E
  alignas(16) float w[D * ChunkShape<D>::kAcross];  // W, Z, E A
  float pivots[D];
};

template <>
class Join<128> {
 public:
  static constexpr int kThreads = ChunkShape<128>::kThreads;

  __device__ Join(const ElementArgs& args, JoinTiles<128>& tiles)
      : args_(args), tiles_(tiles), first_(static_cast<int>(blockIdx.x) * args.segment.segments) {}

  __device__ void run() {
    const int last = args_.segment.segments - 2;
    load(tiles_.matrix, entry(1));
    load(tiles_.r, element(1).R);
    wait_for_groups<0>();
    __syncthreads();
    for (int i = 1; i <= last; ++i) {
      pass(element(i));
      float* out = entry(i + 1);
      for (int at = static_cast<int>(threadIdx.x); at < D * D; at += kThreads) {
        out[at] = tiles_.matrix[at / D * kAlong + at % D];
      }
      if (i == last) return;
      load(tiles_.r, element(i + 1).R);
      wait_for_groups<0>();
      __syncthreads();
    }
  }

 private:
  static constexpr int D = 128;
  using Steps = ChunkSteps<D>;
  static constexpr int kWarps = ChunkShape<D>::kWarps;
  static constexpr int kAlong = ChunkShape<D>::kAlong;
  static constexpr int kWide = Steps::kWide;
  static constexpr int kTiles = D / 16 * Steps::kAcrossTiles;
  static constexpr int kOwn = (kTiles + kWarps - 1) / kWarps;

  __device__ float* entry(int segment) {
    return args_.entries + (static_cast<Index>(first_) + segment) * D * D;
  }
  __device__ ElementView<D> element(int segment) {
    return ElementView<D>(args_.elements, first_ + segment);
  }
  __device__ static void load(float* to, const float* from) {
    for (int i = static_cast<int>(threadIdx.x); i < D * D / 4; i += kThreads) {
      copy_async_16(to + i / (D / 4) * kAlong + i % (D / 4) * 4, from + 4 * i, true);
    }
    close_group();
  }

  /// 13, with the rows of R^T, which are in `r`, as tokens.
  __device__ void pass(const ElementView<D>& element) {
    const Team block = Team::block();
    const Matrix A = Steps::along(tiles_.matrix);
    const Matrix r = Steps::along(tiles_.r);
    const Matrix w = Steps::across(tiles_.w);
    multiply(block, r, A.transposed(), w);
    __syncthreads();
    {
      Accumulator<D, kWarps> gram;
      gram.each(block.rank, [&](WarpTile<1, 2>& tile, int row, int column) {
        tile.template add_product<Grade::float32>(r.from(16 * row, 0),
                                                  w.transposed().from(0, 16 * column), {0, D});
      });
      __syncthreads();
      gram.each(block.rank, [&](WarpTile<1, 2>& tile, int row, int column) {
        tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
          if (i == j) x += 1.0F;
          if (i == j + 1) y += 1.0F;
          *reinterpret_cast<float2*>(&r(i, j)) = make_float2(x, y);
        });
      });
    }
    __syncthreads();
    if (block.rank < D / 16) {
      invert_factor<D / 16, kAlong, 1>(tiles_.r, 0.0F, tiles_.pivots, block.rank);
    }
    __syncthreads();
    divide(block);
    __syncthreads();
    load(tiles_.r, element.E);
    Steps::template subtract_squares<D>(block, tiles_.matrix, w, 0.0F);
    wait_for_groups<0>();
    __syncthreads();
    const Matrix E = r;
    const Matrix EA = Steps::along(tiles_.w);
    multiply(block, E, A.transposed(), EA);
    __syncthreads();
    for_lower_tiles<D / 16>(block, [&](int row, int column) {
      WarpTile<1, 2> tile;
      tile.template add_product<Grade::float32>(EA.from(16 * row, 0),
                                                E.transposed().from(0, 16 * column), {0, D});
      const auto put = [&](int i, int j, float x) {
        if (j > i) return;
        A(i, j) = A(j, i) = element.C[i * D + j] + x;
      };
      tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
        put(i, j, x);
        put(i, j + 1, y);
      });
    });
    __syncthreads();
  }

  __device__ static void multiply(Team team, const Matrix& a, const Matrix& b, const Matrix& out) {
    for_tiles<D / 16, Steps::kAcrossTiles>(team, [&](int row, int column) {
      WarpTile<1, kWide> tile;
      tile.template add_product<Grade::float32>(a.from(16 * row, 0), b.from(0, 8 * kWide * column),
                                                {0, D});
      tile.each_pair(16 * row, 8 * kWide * column, [&](int i, int j, float x, float y) {
        *reinterpret_cast<float2*>(&out(i, j)) = make_float2(x, y);
      });
    });
  }

  /// Z in the place of W.
  __device__ void divide(Team team) {
    const Matrix w = Steps::across(tiles_.w);
    WarpTile<1, kWide> own[kOwn];
    const auto each = [&](const auto& body) {
#pragma unroll
      for (int n = 0; n < kOwn; ++n) {
        const int tile = team.rank + n * kWarps;
        if (tile < kTiles) body(own[n], tile % (D / 16), tile / (D / 16));
      }
    };
    each([&](auto& tile, int row, int column) {
      tile.template add_product<Grade::float32>(Steps::along(tiles_.r).from(16 * row, 0),
                                                w.from(0, 8 * kWide * column), {0, 16 * (row + 1)});
    });
    __syncthreads();
    each([&](auto& tile, int row, int column) {
      tile.each_pair(16 * row, 8 * kWide * column, [&](int i, int j, float x, float y) {
        *reinterpret_cast<float2*>(&w(i, j)) = make_float2(x, y);
      });
    });
  }

  const ElementArgs& args_;
  JoinTiles<128>& tiles_;
  int first_;  // the lane's first segment among all
};

template <int D>
__global__ void __launch_bounds__(Join<D>::kThreads, 1)
    penalty_join_kernel(const ElementArgs args) {
  extern __shared__ float4 memory[];
  Join<D>(args, *reinterpret_cast<JoinTiles<D>*>(memory)).run();
}

/// Allows a kernel the shared memory that its tiles take.
void allow(const void* kernel, int bytes) {
  VLA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

template <int D>
void launch(cudaStream_t stream, const ElementArgs& args, unsigned lanes) {
  constexpr int kThreads = ChunkShape<D>::kThreads;
  constexpr int kElementBytes = sizeof(ElementTiles<D>);
  allow(reinterpret_cast<const void*>(penalty_elements_kernel<D>), kElementBytes);
  const dim3 grid(static_cast<unsigned>(args.segment.segments - 1), lanes);
  penalty_elements_kernel<D><<<grid, kThreads, kElementBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("penalty_elements_kernel");
  if (args.segment.segments == 2) return;
  constexpr int kJoinBytes = sizeof(JoinTiles<D>);
  allow(reinterpret_cast<const void*>(penalty_join_kernel<D>), kJoinBytes);
  penalty_join_kernel<D><<<lanes, Join<D>::kThreads, kJoinBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("penalty_join_kernel");
}

}  // namespace

void find_segment_entries(cudaStream_t stream, const HeadDims& dims, const SegmentArgs& args,
                          float* workspace) {
  const Index d = kernel_head_size(dims.d_h);
  const ElementArgs kernel_args{.segment = args,
                                .entries = workspace,
                                .elements = workspace + dims.lanes() * args.segments * d * d};
  with_head_size(dims.d_h, [&](auto size) {
    launch<size>(stream, kernel_args, static_cast<unsigned>(dims.lanes()));
  });
}

}  // namespace vla_bench::mixers::cuda
