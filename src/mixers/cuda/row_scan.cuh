// A row of S (or dS) on a few threads: what the row passes of state_scan.h share.
#pragma once

#include "mixers/cuda/token_tiles.cuh"

namespace vla_bench::mixers::cuda {

/// A row of S lies on kGroup threads; a thread holds its share of kRows rows, so that a vector read
/// from shared memory serves several rows. Blocks are small: rows that fit into one warp or two
/// need no more, and short blocks spread over more multiprocessors.
template <int D>
struct RowShape {
  static constexpr int kGroup = 4;
  static constexpr int kRows = D <= 32 ? 2 : 1;
  static constexpr int kThreads = D == 16 ? 32 : 64;
  static constexpr int kGroups = kThreads / kGroup;
  static constexpr int kBlockRows = kGroups * kRows;
  static constexpr int kChannels = D / kGroup;
  static constexpr int kTokens = D == 128 ? 8 : 16;  // of a tile: two of them fit into 48 KiB
};

/// What all blocks of a row pass know about their lane.
struct RowBlock {
  int lane, batch, head, first_row;
  const float* scale;  // of the lane's first token, or null

  __device__ RowBlock(int heads, int tokens, int rows, const float* all_scales)
      : lane(static_cast<int>(blockIdx.x)),
        batch(lane / heads),
        head(lane % heads),
        first_row(static_cast<int>(blockIdx.y) * rows),
        scale(all_scales == nullptr
                  ? nullptr
                  : all_scales + static_cast<Index>(batch) * tokens * heads + head) {}
};

}  // namespace vla_bench::mixers::cuda
