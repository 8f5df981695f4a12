// Softmax attention on the GPU, float32 storage; softmax.h states the mathematics.
//
// Which kernel runs (softmax_tiles.h chooses the tiles by the shape):
//   float32      forward   softmax_forward.cu
//                backward  softmax_backward_lane.cu for 17 to 80 tokens and d <= 64,
//                          softmax_backward.cu for all others
//   tf32, bf16   forward   softmax_forward_mma.cu
//                backward  softmax_backward_mma.cu
//   unfused      forward   cuBLAS and softmax_unfused.cu
//
// Fused core. Tiles of queries against tiles of keys in shared memory, online softmax, no T x T
// matrix (FlashAttention: arXiv:2205.14135, arXiv:2307.08691); tiles above the diagonal are
// skipped.
//   float32: plain multiply-adds. tf32, bf16: tensor cores on rounded operands (queries, keys,
//   values, upstream gradients, weights and gradients of scores), sums in float32.
//   Forward: a thread block owns a tile of queries, long rows first. Where lanes are too short to
//   fill the GPU, four warps share the keys of a tile and merge in order.
//   Backward: one kernel with two roles, queries (dq) and keys (dk, dv); each recomputes the
//   weights, seven products of tiles instead of the five of a single pass, but every gradient has
//   one writer and every sum a fixed order. A single pass would accumulate dq in memory tile by
//   tile: 2 T d extra loads and stores for every tile of keys, or atomics. A lane of at most 80
//   tokens fits into shared memory with its weights: float32 then takes a single pass of one block.
//
// The gradient of the key bias is sum_j dk_j = s sum_i q_i (sum_j dx_ij), and a row of dx sums to
// zero: only rounding noise remains, and Adam divides noise by its own size. float32 therefore
//   - keeps (shift, scale) of a row, the largest exponent and 1 / sum, rather than their
//     logarithmic sum, whose rounding would scale a whole row of weights;
//   - computes q . k and g . v channel by channel in one accumulator, so that both roles get the
//     same bits for any tiles, and with them the same weights and the same rounded dx;
//   - adds up each row of these rounded dx, once, and takes the rest from the row's diagonal key in
//     both gradients: dq_i -= s rest_i k_i, dk_i -= s rest_i q_i.
// What remains is the rounding of the sums over i inside each dk_j. Tensor cores round dx itself to
// 11 or 8 bits, which makes such a correction useless; a key bias changes no output, so its noise
// is harmless there.
//
// Work, T (T + 1) / 2 pairs per lane: forward 4 d FLOP per pair, backward 14 d as computed (10 d in
// a single pass). Bytes: forward 16 d per token and lane (q, k, v in, o out), backward 48 d (q, k,
// v, o, d_o in, the three gradients out, o read once, the others by both roles), 32 d in a single
// pass. Floors on an H200 (67 TFLOP/s float32, 4.8 TB/s):
//   B = 64, H = 4, T = 73, d = 32: forward 0.09 GFLOP, 9.6 MB: 2.0 us by bytes, in tiles of 16 x 32
//   that compute 1.7 times the pairs; backward, a single pass, 0.22 GFLOP, 19 MB: 4.0 us by bytes.
//   B = 4, H = 1, T = 16384, d = 64: forward 137 GFLOP, 2.1 ms; backward 481 GFLOP, 7.2 ms.
//
// Unfused core, for comparison: what a framework does without a fused kernel. Scores by one cuBLAS
// product, mask and softmax in place, one product with the values; 4 B H T^2 bytes of scores, read
// and written about five times. It has only a forward.
#pragma once

#include <memory>

#include "mixers/mixer.h"
#include "mixers/softmax/softmax_tiling.h"

namespace vla_bench::mixers {

/// Supports d_h of 16, 32, 64 and 128, and 8 (for the golden files) and 256 only in float32. Throws
/// RunError for other precisions or sizes.
std::unique_ptr<MixerCore<float>> make_softmax_cuda_core(
    Index d_h, SoftmaxTiling tiling = SoftmaxTiling::by_shape);

/// Supports any d_h; backward throws RunError.
std::unique_ptr<MixerCore<float>> make_unfused_softmax_cuda_core(Index d_h);

}  // namespace vla_bench::mixers
