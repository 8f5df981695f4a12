// The choice of tiles for softmax attention. It does not depend on the GPU at hand: the same shapes
// give the same bits on every one.
#pragma once

#include "mixers/heads.h"
#include "mixers/softmax/softmax_tiling.h"

namespace vla_bench::mixers::softmax::cuda {

/// Largest shared memory of a thread block on compute capability 9.0, in bytes.
inline constexpr int kSharedBytes = 227 * 1024;

/// Multiprocessors of the H100 and H200.
inline constexpr Index kMultiprocessors = 132;
/// Wanted number of blocks of several warps: three per multiprocessor, so that the short rows of a
/// causal lane fill the gaps that the long ones leave.
inline constexpr Index kWideBlocks = 3 * kMultiprocessors;
/// Wanted number of blocks of one warp: one for each of a multiprocessor's four schedulers.
inline constexpr Index kWarpBlocks = 4 * kMultiprocessors;

/// Fewest tiles along a lane: half a tile of every row of tiles is above the diagonal and computed
/// in vain, so at most 1 / kRowsOfTiles of the work is wasted.
inline constexpr Index kRowsOfTiles = 8;

/// Sequence lengths whose float32 backward takes one block per lane: at most what 256 threads and
/// half of a multiprocessor's shared memory hold (softmax_backward_lane.cu). A shorter lane is one
/// tile of one warp anyway, and smaller blocks leave room for more lanes at once.
inline constexpr Index kLongestLane = 80, kShortestLane = 17;
inline constexpr Index kWidestLane = 64;  // d

inline Index tiles(Index tokens, Index tile) { return (tokens + tile - 1) / tile; }

inline Index blocks(const HeadDims& dims, Index tile) {
  return dims.lanes() * tiles(dims.tokens, tile);
}

/// Whether tiles of `tile` own rows keep the GPU busy and waste little.
inline bool fits(const HeadDims& dims, Index tile) {
  return dims.tokens >= kRowsOfTiles * tile && blocks(dims, tile) >= kWideBlocks;
}

inline bool chosen_by_shape(SoftmaxTiling wanted) {
  return wanted == SoftmaxTiling::by_shape || wanted == SoftmaxTiling::whole_lane;
}

/// Whether the float32 backward runs with one block per lane.
inline bool takes_whole_lane(SoftmaxTiling wanted, const HeadDims& dims) {
  if (!chosen_by_shape(wanted) || dims.tokens > kLongestLane || dims.d_h > kWidestLane) {
    return false;
  }
  return wanted == SoftmaxTiling::whole_lane || dims.tokens >= kShortestLane;
}

/// Chooses the widest tiles that fit, of `wide` or `medium` own rows, else those of one warp; where
/// even these are few, four warps share the keys of a tile.
inline SoftmaxTiling choose_tiling(SoftmaxTiling wanted, const HeadDims& dims, Index wide,
                                   Index medium, Index narrow) {
  if (!chosen_by_shape(wanted)) return wanted;
  if (fits(dims, wide)) return SoftmaxTiling::wide;
  if (fits(dims, medium)) return SoftmaxTiling::medium;
  return blocks(dims, narrow) >= kWarpBlocks ? SoftmaxTiling::narrow : SoftmaxTiling::shared_keys;
}

/// Whether to take the wider of two sizes of tiles.
inline bool takes_wide(SoftmaxTiling wanted, const HeadDims& dims, Index wide) {
  if (chosen_by_shape(wanted)) return fits(dims, wide);
  return wanted == SoftmaxTiling::wide || wanted == SoftmaxTiling::medium;
}

}  // namespace vla_bench::mixers::softmax::cuda
