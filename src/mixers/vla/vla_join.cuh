// A step of the join of vla_segments_cuda.h (13 of vla_chunked.h) for d up to 64, by a block.
#pragma once

#include "mixers/vla/vla_elements.cuh"

namespace vla_bench::mixers::cuda {

/// For d up to 64. In the form
///   A_out = C + E A E^T - V^T V,  V = L^-1 R^T A E^T,  L L^T = I + R^T A R
/// little waits for the factorisation: a step's chain is two products before it and two behind.
template <int D>
struct JoinShape {
  static constexpr int kWarps = D == 64 ? 16 : D / 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kMatrix = D * ChunkShape<D>::kAlong;
  static constexpr int kReadAcross = D * ChunkShape<D>::kAcross;
};

/// In shared memory.
template <int D>
struct StoredElement {
  static constexpr int kMatrix = JoinShape<D>::kMatrix;
  alignas(16) float E[kMatrix];
  alignas(16) float C[kMatrix];
  alignas(16) float R[kMatrix];  // R^T
};

template <int D>
struct JoinStepTiles {
  static constexpr int kMatrix = JoinShape<D>::kMatrix;
  alignas(16) float matrix[kMatrix];  // A
  alignas(16) float EA[kMatrix];
  alignas(16) float RA[kMatrix];    // R^T A
  alignas(16) float RAE[kMatrix];   // R^T A E^T
  alignas(16) float gram[kMatrix];  // I + R^T A R, then its factor
  alignas(16) float V[JoinShape<D>::kReadAcross];
  float pivots[D];
};

/// copies (D, D) into rows of kStride numbers.
template <int D, int kStride>
__device__ inline void load_matrix(float* to, const float* from) {
  for (int i = static_cast<int>(threadIdx.x); i < D * D / 4; i += JoinShape<D>::kThreads) {
    copy_async_16(to + i / (D / 4) * kStride + i % (D / 4) * 4, from + 4 * i, true);
  }
}
template <int D>
__device__ inline void load_element(StoredElement<D>& to, const ElementView<D>& from) {
  load_matrix<D, ChunkShape<D>::kAlong>(to.E, from.E);
  load_matrix<D, ChunkShape<D>::kAlong>(to.C, from.C);
  load_matrix<D, ChunkShape<D>::kAlong>(to.R, from.R);
}
/// And back.
template <int D, int kStride>
__device__ inline void store_matrix(float* to, const float* from) {
  for (int i = static_cast<int>(threadIdx.x); i < D * D; i += JoinShape<D>::kThreads) {
    to[i] = from[i / D * kStride + i % D];
  }
}

/// A step of the join by a block: tiles.matrix from A_in to A_out.
template <int D>
class JoinStep {
 public:
  __device__ JoinStep(JoinStepTiles<D>& tiles, StoredElement<D>& element)
      : tiles_(tiles), element_(element) {}

  /// beside_start(team) and beside_divide(team) are work that may share the first product's and the
  /// division's time.
  template <class BesideStart, class BesideDivide>
  __device__ void run(const BesideStart& beside_start, const BesideDivide& beside_divide) {
    const Team block = Team::block();
    multiply_by_A(block);
    beside_start(block);
    __syncthreads();
    find_gram(block);
    __syncthreads();
    factorise_together<kBlocks, kAlong, kWarps>(
        tiles_.gram, 0.0F, tiles_.pivots, block.rank,
        [&](int k) { multiply_by_E(k * (kWarps - 1) + block.rank - 1); });
    divide(block, 0, tiles_.RAE, tiles_.V);
    beside_divide(block);
    __syncthreads();
    finish_A(block);
  }
  __device__ void run() {
    run([](Team) {}, [](Team) {});
  }

  /// to = L^-1 from, 16 columns by a warp, from the team's member `first` on.
  __device__ void divide(Team team, int first, const float* from, float* to) {
    const int strip = team.rank - first;
    if (strip < 0 || strip >= kBlocks) return;
    WarpBlock x[kBlocks];
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      x[k].template load_transposed<kAlong>(from + 16 * (k * kAlong + strip));
    }
    divide_by_factor<kBlocks, kAlong>(x, tiles_.gram);
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      x[k].template store_transposed<kAcross>(to + 16 * (k * kAcross + strip));
    }
  }

 private:
  using Steps = ChunkSteps<D>;
  static constexpr int kWarps = JoinShape<D>::kWarps;
  static constexpr int kAlong = ChunkShape<D>::kAlong;
  static constexpr int kAcross = ChunkShape<D>::kAcross;
  static constexpr int kBlocks = D / 16;
  static_assert(kBlocks < kWarps);

  /// E A and R^T A
  __device__ void multiply_by_A(Team team) {
    for_tiles<2 * kBlocks, kBlocks>(team, [&](int row, int column) {
      const bool of_E = row < kBlocks;
      row = 16 * (row % kBlocks);
      float* out = of_E ? tiles_.EA : tiles_.RA;
      exact(Steps::along(of_E ? element_.E : element_.R, row),
            Steps::along(tiles_.matrix, 16 * column))
          .each_pair(row, 16 * column,
                     [&](int i, int j, float x, float y) { put(out, i, j, x, y); });
    });
  }

  __device__ void find_gram(Team team) {
    for_lower_tiles<kBlocks>(team, [&](int row, int column) {
      exact(Steps::along(tiles_.RA, 16 * row), Steps::along(element_.R, 16 * column))
          .each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
            put(tiles_.gram, i, j, i == j ? x + 1.0F : x, i == j + 1 ? y + 1.0F : y);
          });
    });
  }

  /// One tile of R^T A E^T, then of C + E A E^T, its lower triangle, in the place of C; there may
  /// be no tile of that number.
  __device__ void multiply_by_E(int number) {
    constexpr int kWhole = kBlocks * kBlocks;
    if (number < kWhole) {
      const int row = 16 * (number % kBlocks);
      const int column = 16 * (number / kBlocks);
      exact(Steps::along(tiles_.RA, row), Steps::along(element_.E, column))
          .each_pair(row, column,
                     [&](int i, int j, float x, float y) { put(tiles_.RAE, i, j, x, y); });
    } else if (number < kWhole + kBlocks * (kBlocks + 1) / 2) {
      int row = 0, column = number - kWhole;
      while (column > row) column -= ++row;
      exact(Steps::along(tiles_.EA, 16 * row), Steps::along(element_.E, 16 * column))
          .each_pair(16 * row, 16 * column, [&](int i, int j, float x, float y) {
            const float* C = element_.C + i * kAlong + j;
            put(element_.C, i, j, C[0] + x, C[1] + y);
          });
    }
  }

  __device__ void finish_A(Team team) {
    for_lower_tiles<kBlocks>(team, [&](int row, int column) {
      Steps::set_symmetric(
          exact(Steps::across(tiles_.V, 16 * row), Steps::across(tiles_.V, 16 * column)), row,
          column, tiles_.matrix, [&](int i, int j, float x, float y) {
            const float* C = element_.C + i * kAlong + j;
            return make_float2(C[0] - x, C[1] - y);
          });
    });
  }

  template <class LeftOperand, class RightOperand>
  __device__ static WarpTile<1, 2> exact(const LeftOperand& a, const RightOperand& b) {
    return tile_product(a, b, {0, D});
  }
  __device__ static void put(float* out, int i, int j, float x, float y) {
    Steps::template put<kAlong>(out, i, j, x, y);
  }

  JoinStepTiles<D>& tiles_;
  StoredElement<D>& element_;
};

}  // namespace vla_bench::mixers::cuda
