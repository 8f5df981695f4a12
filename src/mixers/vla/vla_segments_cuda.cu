// The join of vla_segments_cuda.h.
//
// Steps of the join follow each other. Where there are many, neighbouring elements are composed
// first (14 of vla_chunked.h), in levels of half as many elements each: the highest level's are
// joined one after the other, and every level below adds, side by side, the entries between.
#include <algorithm>

#include "core/cuda/check.h"
#include "mixers/vla/vla_join.cuh"
#include "mixers/vla/vla_segments_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

/// Elements of a level, two of the level below each: of a lane number 1 .. count, each over `step`
/// segments, the first from segment 1 on.
struct Level {
  float* elements;
  int count, step;

  __device__ int number(int lane, int element) const { return lane * (count + 1) + element; }
};

struct JoinArgs {
  float* entries;  // (lanes, segments, D, D)
  int segments;
  Level level;
  int alternate;  // a step for every second element, side by side; otherwise all, one by one
};

template <int D>
struct JoinTiles {
  JoinStepTiles<D> step;
  StoredElement<D> elements[2];
};

template <int D>
class Join {
 public:
  static constexpr int kThreads = JoinShape<D>::kThreads;

  __device__ Join(const JoinArgs& args, JoinTiles<D>& tiles)
      : args_(args), tiles_(tiles), lane_(static_cast<int>(blockIdx.y)) {}

  __device__ void run() {
    const int first = 1 + 2 * static_cast<int>(blockIdx.x);
    const int last = args_.alternate != 0 ? first : args_.level.count;
    load_matrix<D, kAlong>(tiles_.step.matrix, entry(first));
    load(first);
    close_group();
    wait_for_groups<0>();
    __syncthreads();
    for (int i = first; i <= last; ++i) {
      if (i < last) load(i + 1);
      close_group();
      JoinStep<D>(tiles_.step, tiles_.elements[i % 2]).run();
      wait_for_groups<0>();
      __syncthreads();
      store_matrix<D, kAlong>(entry(i + 1), tiles_.step.matrix);
    }
  }

 private:
  static constexpr int kAlong = ChunkShape<D>::kAlong;

  /// A before the level's element i.
  __device__ float* entry(int i) {
    const int segment = 1 + (i - 1) * args_.level.step;
    return args_.entries + (static_cast<Index>(lane_) * args_.segments + segment) * D * D;
  }
  __device__ void load(int i) {
    load_element<D>(tiles_.elements[i % 2], {args_.level.elements, args_.level.number(lane_, i)});
  }

  const JoinArgs& args_;
  JoinTiles<D>& tiles_;
  int lane_;
};

struct ComposeArgs {
  Level from, to;
};

template <int D>
struct ComposeTiles {
  JoinStepTiles<D> step;  // from C of the first
  StoredElement<D> second;
  alignas(16) float E[JoinShape<D>::kReadAcross];  // of the first
  alignas(16) float R[JoinShape<D>::kReadAcross];
  alignas(16) float RE[JoinShape<D>::kMatrix];     // R^T E, of the second and the first
  alignas(16) float H[JoinShape<D>::kReadAcross];  // L^-1 R^T E
};

/// Two elements one after the other, 14 in the form of JoinStep: with A_in = C_1,
///   C = A_out,  E = E_2 E_1 - V^T H,  J = R_1 R_1^T + H^T H,  H = L^-1 R_2^T E_1
template <int D>
class Compose {
 public:
  __device__ Compose(const ComposeArgs& args, ComposeTiles<D>& tiles)
      : args_(args), tiles_(tiles), lane_(static_cast<int>(blockIdx.y)) {}

  __device__ void run() {
    const int number = 1 + static_cast<int>(blockIdx.x);
    const ElementView<D> one(args_.from.elements, args_.from.number(lane_, 2 * number - 1));
    load_matrix<D, kAlong>(tiles_.step.matrix, one.C);
    load_matrix<D, kAcross>(tiles_.E, one.E);
    load_matrix<D, kAcross>(tiles_.R, one.R);
    load_element<D>(tiles_.second, {args_.from.elements, args_.from.number(lane_, 2 * number)});
    close_group();
    wait_for_groups<0>();
    __syncthreads();
    JoinStep<D> step(tiles_.step, tiles_.second);
    step.run([&](Team team) { multiply_R_by_E(team); },
             [&](Team team) { step.divide(team, D / 16, tiles_.RE, tiles_.H); });
    const ElementView<D> out(args_.to.elements, args_.to.number(lane_, number));
    find_E(out.E);
    find_J();
    __syncthreads();
    store_matrix<D, kAlong>(out.C, tiles_.step.matrix);
    find_root<D, JoinShape<D>::kThreads>(tiles_.step.RA, tiles_.step.V, out.R);
  }

 private:
  using Steps = ChunkSteps<D>;
  static constexpr int kAlong = ChunkShape<D>::kAlong;
  static constexpr int kAcross = ChunkShape<D>::kAcross;

  __device__ void multiply_R_by_E(Team team) {
    for_tiles<D / 16, D / 16>(team, [&](int row, int column) {
      tile_product(Steps::along(tiles_.second.R, 16 * row), Steps::across(tiles_.E, 16 * column),
                   {0, D})
          .each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
            Steps::template put<kAlong>(tiles_.RE, i, j, x, y);
          });
    });
  }
  __device__ void find_E(float* out) {
    for_tiles<D / 16, D / 16>(Team::block(), [&](int row, int column) {
      const auto taken = tile_product(Steps::across(tiles_.step.V, 16 * row),
                                      Steps::across(tiles_.H, 16 * column), {0, D});
      auto tile = tile_product(Steps::along(tiles_.second.E, 16 * row),
                               Steps::across(tiles_.E, 16 * column), {0, D});
#pragma unroll
      for (int e = 0; e < 8; ++e) tile.values[0][e / 4][e % 4] -= taken.values[0][e / 4][e % 4];
      tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
        Steps::template put<D>(out, i, j, x, y);
      });
    });
  }
  /// In the place of R^T A.
  __device__ void find_J() {
    const auto squares = [](const float* rows, int row, int column) {
      return tile_product(Steps::across(rows, 16 * row), Steps::across(rows, 16 * column), {0, D});
    };
    for_lower_tiles<D / 16>(Team::block(), [&](int row, int column) {
      auto tile = squares(tiles_.R, row, column);
      tile.add(squares(tiles_.H, row, column));
      Steps::set_symmetric(tile, row, column, tiles_.step.RA,
                           [](int, int, float x, float y) { return make_float2(x, y); });
    });
  }

  const ComposeArgs& args_;
  ComposeTiles<D>& tiles_;
  int lane_;
};

/// At d = 128 three matrices fill shared memory: A, and two that serve one step after the other.
template <int D>
requires(D == 128) struct JoinTiles<D> {
  alignas(16) float matrix[D * ChunkShape<D>::kAlong];
  alignas(16) float r[D * ChunkShape<D>::kAlong];   // R^T, I + R^T W, its factor; E
  alignas(16) float w[D * ChunkShape<D>::kAcross];  // W, Z, E A
  float pivots[D];
};

template <int D>
requires(D == 128) class Join<D> {
 public:
  static constexpr int kThreads = ChunkShape<D>::kThreads;

  __device__ Join(const JoinArgs& args, JoinTiles<D>& tiles)
      : args_(args), tiles_(tiles), lane_(static_cast<int>(blockIdx.y)) {}

  __device__ void run() {
    const int last = args_.level.count;
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
  using Steps = ChunkSteps<D>;
  static constexpr int kWarps = ChunkShape<D>::kWarps;
  static constexpr int kAlong = ChunkShape<D>::kAlong;

  __device__ float* entry(int segment) {
    return args_.entries + (static_cast<Index>(lane_) * args_.segments + segment) * D * D;
  }
  __device__ ElementView<D> element(int segment) {
    return ElementView<D>(args_.level.elements, args_.level.number(lane_, segment));
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
    multiply(block, tiles_.r, tiles_.matrix, tiles_.w);
    __syncthreads();
    {
      Accumulator<D, kWarps> gram;
      gram.each(block.rank, [&](WarpTile<1, 2>& tile, int row, int column) {
        tile = tile_product(Steps::along(tiles_.r, 16 * row), Steps::along(tiles_.w, 16 * column),
                            {0, D});
      });
      __syncthreads();
      gram.each(block.rank, [&](WarpTile<1, 2>& tile, int row, int column) {
        tile.each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
          put(tiles_.r, i, j, i == j ? x + 1.0F : x, i == j + 1 ? y + 1.0F : y);
        });
      });
    }
    __syncthreads();
    factorise_together<D / 16, kAlong, kWarps>(tiles_.r, 0.0F, tiles_.pivots, block.rank,
                                               [](int) {});
    divide(block);
    __syncthreads();
    load(tiles_.r, element.E);
    Steps::template subtract_squares<D>(block, tiles_.matrix, tiles_.w, 0.0F);
    wait_for_groups<0>();
    __syncthreads();
    multiply(block, tiles_.r, tiles_.matrix, tiles_.w);
    __syncthreads();
    for_lower_tiles<D / 16>(block, [&](int row, int column) {
      Steps::set_symmetric(tile_product(Steps::along(tiles_.w, 16 * row),
                                        Steps::along(tiles_.r, 16 * column), {0, D}),
                           row, column, tiles_.matrix, [&](int i, int j, float x, float y) {
                             const float* C = element.C + i * D + j;
                             return make_float2(C[0] + x, C[1] + y);
                           });
    });
    __syncthreads();
  }

  /// out = a b, b symmetric.
  __device__ static void multiply(Team team, const float* a, const float* b, float* out) {
    for_tiles<D / 16, D / 16>(team, [&](int row, int column) {
      tile_product(Steps::along(a, 16 * row), Steps::along(b, 16 * column), {0, D})
          .each_pair(16 * row, 16 * column,
                     [&](int i, int j, float x, float y) { put(out, i, j, x, y); });
    });
  }
  __device__ static void put(float* out, int i, int j, float x, float y) {
    Steps::template put<kAlong>(out, i, j, x, y);
  }

  /// Z in the place of W, 16 of its channels by a warp.
  __device__ void divide(Team team) {
    constexpr int kBlocks = D / 16;
    constexpr int kAcross = ChunkShape<D>::kAcross;
    static_assert(kBlocks <= kWarps);
    WarpBlock x[kBlocks];
    if (team.rank < kBlocks) {
#pragma unroll
      for (int k = 0; k < kBlocks; ++k) {
        x[k].template load_transposed<kAlong>(tiles_.w + 16 * (k * kAlong + team.rank));
      }
      divide_by_factor<kBlocks, kAlong>(x, tiles_.r);
    }
    __syncthreads();
    if (team.rank < kBlocks) {
#pragma unroll
      for (int k = 0; k < kBlocks; ++k) {
        x[k].template store_transposed<kAcross>(tiles_.w + 16 * (k * kAcross + team.rank));
      }
    }
  }

  const JoinArgs& args_;
  JoinTiles<D>& tiles_;
  int lane_;
};

template <int D>
__global__ void __launch_bounds__(Join<D>::kThreads, 1) penalty_join_kernel(const JoinArgs args) {
  extern __shared__ float4 memory[];
  Join<D>(args, *reinterpret_cast<JoinTiles<D>*>(memory)).run();
}
template <int D>
__global__ void __launch_bounds__(JoinShape<D>::kThreads, 1)
    penalty_compose_kernel(const ComposeArgs args) {
  extern __shared__ float4 memory[];
  Compose<D>(args, *reinterpret_cast<ComposeTiles<D>*>(memory)).run();
}

template <int D>
void join(cudaStream_t stream, const JoinArgs& args, unsigned lanes) {
  constexpr int kBytes = sizeof(JoinTiles<D>);
  allow_shared_memory(reinterpret_cast<const void*>(penalty_join_kernel<D>), kBytes);
  const int blocks = args.alternate != 0 ? (args.level.count + 1) / 2 : 1;
  const dim3 grid(static_cast<unsigned>(blocks), lanes);
  penalty_join_kernel<D><<<grid, Join<D>::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("penalty_join_kernel");
}

template <int D>
void compose(cudaStream_t stream, const ComposeArgs& args, unsigned lanes) {
  constexpr int kBytes = sizeof(ComposeTiles<D>);
  allow_shared_memory(reinterpret_cast<const void*>(penalty_compose_kernel<D>), kBytes);
  const dim3 grid(static_cast<unsigned>(args.to.count), lanes);
  penalty_compose_kernel<D><<<grid, JoinShape<D>::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("penalty_compose_kernel");
}

/// Levels above the first that are composed: a composition takes as long as kStepsOfCompose steps
/// of the join, and each level halves those.
constexpr int kStepsOfCompose = 4;
template <int D>
int count_levels(int elements) {
  if (D == 128) return 0;
  int levels = 0;
  for (; elements / 2 > kStepsOfCompose + 1; elements /= 2) ++levels;
  return levels;
}

template <int D>
void join_levels(cudaStream_t stream, const JoinArgs& args, int levels, unsigned lanes) {
  if constexpr (D < 128) {
    if (levels > 0) {
      JoinArgs above = args;
      const Index used = static_cast<Index>(lanes) * (args.level.count + 1) * 3 * D * D;
      above.level = {args.level.elements + used, args.level.count / 2, 2 * args.level.step};
      compose<D>(stream, {args.level, above.level}, lanes);
      join_levels<D>(stream, above, levels - 1, lanes);
      JoinArgs beside = args;
      beside.alternate = 1;
      return join<D>(stream, beside, lanes);
    }
  }
  join<D>(stream, args, lanes);
}

}  // namespace

template <int D>
void find_segment_entries(cudaStream_t stream, const HeadDims& dims, const SegmentArgs& args,
                          float* workspace) {
  float* elements = workspace + dims.lanes() * args.segments * D * D;
  find_elements<D>(stream, dims, args, workspace, elements);
  if (args.segments == 2) return;
  const JoinArgs all{.entries = workspace,
                     .segments = args.segments,
                     .level = {elements, args.segments - 2, 1},
                     .alternate = 0};
  join_levels<D>(stream, all, count_levels<D>(all.level.count),
                 static_cast<unsigned>(dims.lanes()));
}
#define VLA_INSTANTIATE(d) \
  template void find_segment_entries<d>(cudaStream_t, const HeadDims&, const SegmentArgs&, float*);
VLA_FOR_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
