// Passes over the tokens of a lane in chunks, segments side by side: the forward of chunked.h and
// the three passes of its backward, which are one kernel.
//
// A pass carries a matrix M (d, d) with independent rows. Letters are the forward's, the other
// passes put their vectors in the same places:
//                  M      a    q    r    v    w    o    e
//   forward        S      a    q    r    v         o    e    in time
//   columns of S   S^T    e    d_o  de   a         dq   dr   in time
//   chain of de    dS     a    q    r    d_o       de        against time
//   columns of dS  dS^T   e    d_o  de   q    r    da        against time
// Token t of them, c its scale:
//   forward        e = v - M r;  M <- alpha_t M + e a^T;  o = c M q
//   columns of S   e = -M r;     M <- alpha_t M + v a^T;  o = c M q
//   chain of de    M <- M + c v q^T;  o = M a;  M <- alpha_t M - o r^T
//   columns of dS  M <- M + c v q^T;  o = M a;  M <- alpha_t M - w r^T
// alpha_t is a number for M, one for each of its columns or one for each of its rows: key channels
// that decay apart are columns of S and dS, and rows of their transposes.
#pragma once

#include "mixers/recurrence/chunked_cuda.h"

namespace vla_bench::mixers::cuda {

/// The segments of all lanes.
struct ChunkedSegments {
  int tokens = 0, heads = 0;
  int segments = 1, segment_tokens = 0;
  // Of every segment, in the order in which the pass visits them: M and z behind it if they are 0
  // before it, later M and z behind it (lanes, segments, (d + 1) d); Phi, against time Phi^T
  // (lanes, segments, d, d); the product of its decays (lanes, segments, d).
  float* states = nullptr;
  float* maps = nullptr;
  float* factors = nullptr;
  bool transposed = false;  // `states` hold M^T
  // For the decay's gradient, of every kChunkTokens tokens of a lane: the M before them (lanes,
  // chunks, d, d), which a pass in time writes, and its product with the one of a pass against
  // time, which that pass writes: by warps (lanes, chunks, d / 16), where rows decay apart by rows
  // (lanes, chunks, d); or null.
  float* chunk_states = nullptr;
  float* chunk_products = nullptr;
};
constexpr Index chunks_of_lane(Index tokens) { return (tokens + kChunkTokens - 1) / kChunkTokens; }

/// Vectors are stored as T.
template <class T>
struct ChunkedArgsOf : ChunkedSegments {
  TokenArray<const T> r, a, q, v, w;
  TokenSource decay, scale;
  TokenArray<T> o, e;
  float* denominator = nullptr;
  float floor = 0.0F;
};
using ChunkedArgs = ChunkedArgsOf<float>;

/// What token t does along r: nothing; what it has just read, which the chunk's tokens change for
/// each other, so that a triangular system is solved; or what is known beforehand.
enum class AlongR { nothing, residual, known };

/// Which kernel.
struct ChunkedPass {
  Index d = 0, lanes = 0;
  Grade grade = Grade::float32;
  AlongR along_r = AlongR::nothing;
  Decay decay = Decay::none;  // of M; of rows in the passes over columns of S and dS alone
  bool normalises = false;
};

/// What all passes of a recurrence have in common.
template <class T>
ChunkedArgsOf<T> chunked_args(const RecurrenceInputsOf<T>& inputs, const ChunkedPlan& plan) {
  const HeadDims& dims = inputs.dims;
  ChunkedArgsOf<T> args;
  args.tokens = static_cast<int>(dims.tokens);
  args.heads = static_cast<int>(dims.heads);
  args.segments = static_cast<int>(plan.segments);
  args.segment_tokens = static_cast<int>(plan.segments == 1 ? dims.tokens : plan.segment_tokens);
  args.decay = {dims, inputs.decay};
  args.scale = {dims, inputs.scale};
  return args;
}
template <class T>
ChunkedPass chunked_pass(const RecurrenceInputsOf<T>& inputs, Grade grade) {
  return {.d = inputs.dims.d_h,
          .lanes = inputs.dims.lanes(),
          .grade = grade,
          .along_r = inputs.r.data != nullptr ? AlongR::residual : AlongR::nothing,
          .decay = inputs.decay_kind};
}

/// Elements of `states` of all segments.
inline Index segment_states_size(const HeadDims& dims, const ChunkedPlan& plan) {
  const Index d = kernel_head_size(dims.d_h);
  return dims.lanes() * plan.segments * (d + 1) * d;
}
/// Elements of `states`, `maps` and `factors`, which stand in `memory` in this order.
inline Index segments_size(const HeadDims& dims, const ChunkedPlan& plan) {
  const Index d = kernel_head_size(dims.d_h);
  const Index slots = dims.lanes() * plan.segments;
  return segment_states_size(dims, plan) + slots * d * d + slots * d;
}
inline void give_segments(const HeadDims& dims, const ChunkedPlan& plan, float* memory,
                          ChunkedSegments& args) {
  args.states = memory;
  args.maps = args.states + segment_states_size(dims, plan);
  const Index d = kernel_head_size(dims.d_h);
  args.factors = args.maps + dims.lanes() * plan.segments * d * d;
}

/// What the segments do to the M that enters them, and the passes themselves.
template <class T>
void start_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args);
template <class T>
void run_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args);
void start_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);
void run_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);

/// The same of one head size: chunks_in_time.cu and chunks_against_time.cu are compiled once for
/// each.
template <int D, class T>
void start_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args);
template <int D, class T>
void run_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args);
template <int D>
void start_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);
template <int D>
void run_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);

/// chunk_join.cu: M behind each segment, in the place of what the segment does to zeros.
void join_segments(cudaStream_t stream, const ChunkedPass& pass, const ChunkedSegments& args);

/// decay_gradient.cu, once every other gradient is known; `chunk_products` as above.
void run_decay_gradient(cudaStream_t stream, const RecurrenceInputs& inputs,
                        const RecurrenceBackward& args, const float* chunk_products);

}  // namespace vla_bench::mixers::cuda
