// Elements of vla_segments_cuda.h.
#include "core/cuda/check.h"
#include "mixers/vla/vla_elements.cuh"
#include "mixers/vla/vla_segments_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

struct ElementArgs {
  SegmentArgs segment;
  float* entries;   // (lanes, segments, D, D)
  float* elements;  // (lanes, segments - 1, 3, D, D)
};

/// J takes in a chunk's tokens beside the next chunk's factorisation, if shared memory has room for
/// a Y of its own; otherwise between chunks, with Y in the place of W.
template <int D>
inline constexpr bool kBesideFactor = D < 128;

template <int D>
struct ElementTiles {
  static constexpr int kTokenTile = ChunkShape<D>::kTokens * ChunkShape<D>::kAcross;
  alignas(16) float matrix[D * ChunkShape<D>::kAlong];
  ChunkTiles<D> chunk;
  alignas(16) float E[D * ChunkShape<D>::kAcross];
  alignas(16) float start[ChunkShape<D>::kTokens * ChunkShape<D>::kAlong];  // u^T E
  alignas(16) float y[kBesideFactor<D> ? kTokenTile : 4];
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
    if (kBesideFactor<D> && accumulates_ && own_team().rank >= 0) add_to_J(own_team());
    __syncthreads();
    finish();
  }

 private:
  using Shape = ChunkShape<D>;
  using Steps = ChunkSteps<D>;
  static constexpr int C = Shape::kTokens;
  static constexpr int kOwners = kBesideFactor<D> ? Shape::kWarps - 1 : Shape::kWarps;  // of J

  __device__ ChunkTiles<D>& chunk() { return tiles_.chunk; }
  __device__ const PenaltySettings& settings() const { return args_.segment.settings; }
  static constexpr int kStrideOfY = kBesideFactor<D> ? Shape::kAcross : Shape::kAlong;
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
    Steps::multiply_directions(block, tiles_.matrix, chunk(), parity);
    __syncthreads();
    if (first + C < segment_.end) load(parity ^ 1, first + C);
    Steps::multiply_gram(block, chunk(), parity);
    if (accumulates_) multiply_by_E(Steps::beside_gram(block), parity, 0, Steps::kFirstTiles);
    __syncthreads();
    if (block.rank == 0) {
      // Pivots are at least 1, whatever A enters.
      Steps::factorise_gram(chunk(), settings().stab_eps, parity);
    } else if (accumulates_) {
      const Team beside = {block.rank - 1, block.size - 1};
      multiply_by_E(beside, parity, Steps::kFirstTiles, Steps::kTiles);
      if (kBesideFactor<D> && first > segment_.first) add_to_J(own_team());
    }
    __syncthreads();
    divide(block);
    __syncthreads();
    Steps::update(block, tiles_.matrix, chunk(), chunk().after[parity][C - 1]);
    if (accumulates_) {
      update_E({block.size - 1 - block.rank, block.size});
      if (!kBesideFactor<D>) add_to_J(block);
    }
    count_nudges<C>(settings(), first + C, args_.segment.tokens, chunk().before[parity ^ 1],
                    chunk().after[parity ^ 1]);
    wait_for_groups<0>();
    __syncthreads();
  }

  /// Z, and Y: of the same channels by the same warp, since W and Y may share their place.
  __device__ void divide(Team team) {
    constexpr int kStrips = D / 16;
    constexpr int kAll = kBesideFactor<D> ? 2 * kStrips : kStrips;
    for (int strip = team.rank; strip < kAll; strip += team.size) {
      if (strip < kStrips) {
        Steps::template divide<Shape::kAcross>(chunk(), chunk().w, chunk().z, 16 * strip);
      }
      if (accumulates_ && (!kBesideFactor<D> || strip >= kStrips)) {
        Steps::template divide<kStrideOfY>(chunk(), tiles_.start, y(), 16 * (strip % kStrips));
      }
    }
  }

  /// 12: u^T E, tiles `first` to `end` - 1
  __device__ void multiply_by_E(Team team, int parity, int first, int end) {
    const auto body = [&](int row, int column) {
      tile_product(Steps::along(chunk().u[parity], 16 * row), Steps::across(tiles_.E, 16 * column),
                   {0, D})
          .each_pair(16 * row, 16 * column, [&](int t, int i, float x, float y) {
            Steps::template put<Shape::kAlong>(tiles_.start, t, i, x, y);
          });
    };
    for_tiles<Steps::kRows, Steps::kColumns>(team, body, first, end);
  }

  __device__ Across<kStrideOfY> of_y(int column) { return {y() + 16 * column}; }
  /// 12: E
  __device__ void update_E(Team team) {
    for_tiles<Steps::kColumns, Steps::kColumns>(team, [&](int row, int column) {
      tile_product(Steps::across(chunk().z, 16 * row), of_y(column), {0, C})
          .each_pair(16 * row, 16 * column, [&](int i, int j, float x0, float x1) {
            float2& pair = *reinterpret_cast<float2*>(tiles_.E + i * Shape::kAcross + j);
            pair = make_float2(pair.x - x0, pair.y - x1);
          });
    });
  }

  /// 12: J. Tensor cores cut their sums off towards 0, which adds up over chunks: they sum one.
  __device__ void add_to_J(Team team) {
    J_.each(team.rank, [&](WarpTile<1, 2>& tile, int row, int column) {
      tile.add(tile_product(of_y(row), of_y(column), {0, C}));
    });
  }

  __device__ void finish() {
    const int number = segment_.lane * args_.segment.segments + segment_.index;
    const ElementView<D> element(args_.elements, number - segment_.lane);
    float* C_out =
        accumulates_ ? element.C : args_.entries + (static_cast<Index>(number) + 1) * D * D;
    for (int i = static_cast<int>(threadIdx.x); i < D * D; i += Shape::kThreads) {
      C_out[i] = tiles_.matrix[i / D * Shape::kAlong + i % D];
      if (accumulates_) element.E[i] = tiles_.E[i / D * Shape::kAcross + i % D];
    }
    if (!accumulates_) return;
    __syncthreads();
    if (own_team().rank >= 0) {
      J_.each(own_team().rank, [&](WarpTile<1, 2>& tile, int row, int column) {
        Steps::set_symmetric(tile, row, column, tiles_.matrix,
                             [](int, int, float x, float y) { return make_float2(x, y); });
      });
    }
    __syncthreads();
    find_root<D, Shape::kThreads>(tiles_.matrix, tiles_.E, element.R);
  }

  const ElementArgs& args_;
  ElementTiles<D>& tiles_;
  Segment segment_;
  const float* lane_data_;
  bool accumulates_;
  Accumulator<D, kOwners> J_;
};

template <int D>
__global__ void __launch_bounds__(ChunkShape<D>::kThreads, ChunkShape<D>::kBlocks)
    penalty_elements_kernel(const ElementArgs args) {
  extern __shared__ float4 memory[];
  Element<D>(args, *reinterpret_cast<ElementTiles<D>*>(memory)).run();
}

template <int D>
void launch(cudaStream_t stream, const ElementArgs& args, unsigned lanes) {
  constexpr int kBytes = sizeof(ElementTiles<D>);
  allow_shared_memory(reinterpret_cast<const void*>(penalty_elements_kernel<D>), kBytes);
  const dim3 grid(static_cast<unsigned>(args.segment.segments - 1), lanes);
  penalty_elements_kernel<D><<<grid, ChunkShape<D>::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("penalty_elements_kernel");
}

}  // namespace

template <int D>
void find_elements(cudaStream_t stream, const HeadDims& dims, const SegmentArgs& args,
                   float* entries, float* elements) {
  const ElementArgs kernel_args{.segment = args, .entries = entries, .elements = elements};
  launch<D>(stream, kernel_args, static_cast<unsigned>(dims.lanes()));
}
#define VLA_INSTANTIATE(d) \
  template void find_elements<d>(cudaStream_t, const HeadDims&, const SegmentArgs&, float*, float*);
VLA_FOR_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
