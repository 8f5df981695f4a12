// The recurrence of recurrence_cuda.h in chunks of C tokens on tensor cores (chunked.h, whose steps
// the numbers are), segments of a lane side by side. For no decay, one per head and token, and one
// per key channel and token (chunk_channels.cuh; chunk_row_decays.cuh in the passes over columns).
//
// A block runs one segment. A warp owns 16 rows of a matrix-valued state: in the forward value rows
// of S, whose e and n stay in registers through steps 3 to 5, the accumulators of one product being
// the left operand of the next, so that no barrier stands inside a chunk. Other warps compute the
// chunk after it at the same time: X and P, which no state enters, with the diagonal blocks of X,
// 16 tokens each, inverted.
// With segments three kernels: what each segment does to the S that enters it (S_local and Phi of
// step 14, without reads), S before each segment one after the other, and the forward from there.
//
// The backward is three passes of the same kernel (chunk_passes.h): de with dS, against time (8,
// 11); then, a warp owning 16 keys, dq and dr with S^T in time, and da with dS^T against time (10).
// S before each segment is the forward's if that is kept, 4 (d + 1) d bytes a segment; without it S
// is written again, which reads 8 d bytes a token. dS takes 15, with a Phi^T of its own. The
// decay's gradient is a sum over later tokens in each chunk, begun with <dS, S>
// (decay_gradient.cu), for which S^T of every chunk is kept from one pass to another; one of a key
// channel has sums of its own.
//
// Multiply-adds per token and head, by 16 x 16 blocks with the diagonal ones full (b = C + 16):
//   forward           3 d^2 + 2 d b with a residual, 2 d^2 + d b without
//   its segments      4 d^2 + 3/2 d b more, d^2 without; then d^3 a segment, or d^2
//   backward          9 d^2 + 6 d b with a residual, 6 d^2 + 3 d b without
//   its segments      5 d^2 + 5/2 d b more, d^2 without; then as in the forward
// (in the backward 3 d^2, without a residual 2 d^2, write S and dS again for their columns).
// With a decay per key channel C is 16, and X and P in the forward and the chain of de, and what P
// and X add to dq, dr and da, take d C / 2 each and as many decays, channel by channel and outside
// tensor cores.
// 3xTF32 does each three times. At d = 64, C = 32 a token has 18.4k and with segments 39.4k, in the
// backward 55.3k and 83.5k; a multiprocessor of an H200 does at most 1024 a cycle in TF32: B = 4,
// H = 1, T = 131,072 on 132 of them at 1.8 GHz takes at least .04 ms, with segments .085 (float32
// .26), without a residual .033; backward with segments .18 (float32 .54), without a residual .08.
// Bytes: reads of r, a, q, v and writes of o (and e), 4 d each; elements read r, a, v again: 20 d
// and 12 d, .67 and .40 GB there, at 4.4 TB/s .15 and .09 ms: in TF32 the floor is memory's. The
// backward reads and writes 68 d and its elements 16 d, without a residual 48 d and 8 d: .64 and
// .43 ms; the decay's gradient 24 d + d^2 / 4 more, without a residual 16 d + d^2 / 4. In bfloat16
// vectors take half.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench::mixers::cuda {

/// How exact the products of chunks are: TF32 rounds operands to 2^-11, float32 (3xTF32) to 2^-22.
/// bf16 is TF32 on vectors that are stored in bfloat16, where their rounding is 2^-9.
enum class Grade { bf16, tf32, float32 };

/// C, tokens.
inline constexpr Index kChunkTokens = 32;

/// How a lane is cut: the last segment may be shorter.
struct ChunkedPlan {
  Index segments = 1;
  Index segment_tokens = 0;  // a multiple of kChunkTokens
};
/// Tokens of a segment, at least.
inline constexpr Index kLeastSegmentTokens = 128;
/// Blocks that a multiprocessor runs at once.
constexpr int blocks_of_multiprocessor(Index d, bool has_residual) {
  return d <= 64 && !has_residual ? 2 : 1;
}
/// As many segments as multiprocessors have room for, or one where that is less than three.
ChunkedPlan plan_segments(const HeadDims& dims, bool has_residual, int multiprocessors);

/// Elements of the forward's scratch memory: S, z, Phi and the decay of each segment.
Index chunked_scratch_size(const HeadDims& dims, const ChunkedPlan& plan);

struct ChunkedOptions {
  ChunkedPlan plan;
  Grade grade = Grade::float32;
  // chunked_scratch_size, in a backward chunked_backward_scratch_size; null with one segment
  float* scratch = nullptr;
  // Of a backward: the memory that the forward with the same plan has left. Null: S is written
  // again, whatever the forward was.
  const float* forward_scratch = nullptr;
  float* sums = nullptr;  // of a backward with a normaliser: normaliser_backward_scratch_size
};
/// recurrence_forward for Decay none, head and columns, without checkpoints. T: float, or Bfloat16
/// with the grade of that name, whose views are aligned; not for Decay columns.
template <class T>
void chunked_forward(cudaStream_t stream, const RecurrenceInputsOf<T>& inputs,
                     const RecurrenceForwardOf<T>& args, const ChunkedOptions& options);

/// Elements of the backward's scratch memory; with the decay's gradient (d + 1) d / 32 a token
/// more.
Index chunked_backward_scratch_size(const HeadDims& dims, const ChunkedPlan& plan,
                                    bool decay_has_gradient);
/// recurrence_backward for Decay none, head and columns. ddecay times the decay is as exact as the
/// other gradients, ddecay where the decay is near 0 is not; where that is below 1e-20 it is 0.
void chunked_backward(cudaStream_t stream, const RecurrenceInputs& inputs,
                      const RecurrenceBackward& args, const ChunkedOptions& options);

}  // namespace vla_bench::mixers::cuda
