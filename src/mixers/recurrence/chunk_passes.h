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
#pragma once

#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/recurrence/pipeline.cuh"

namespace vla_bench::mixers::cuda {

struct ChunkedArgs {
  int tokens, heads;
  int segments, segment_tokens;
  TokenSource r, a, q, v, w, decay, scale;
  TokenTarget o, e;
  float* denominator = nullptr;
  float floor = 0.0F;
  // Of every segment, in the order in which the pass visits them.
  float* states =
      nullptr;  // (lanes, segments, (d + 1) d): M, z of each segment, later those behind it
  float* maps = nullptr;     // (lanes, segments, d, d): Phi, against time Phi^T
  float* factors = nullptr;  // (lanes, segments): product of a segment's decays
  bool transposed = false;   // `states` hold M^T
};

/// What token t does along r: nothing; what it has just read, which the chunk's tokens change for
/// each other, so that a triangular system is solved; or what is known beforehand.
enum class AlongR { nothing, residual, known };

/// Which kernel.
struct ChunkedPass {
  Index d = 0, lanes = 0;
  Grade grade = Grade::float32;
  AlongR along_r = AlongR::nothing;
  bool decays = false;
  bool normalises = false;
};

/// What all passes of a recurrence have in common.
inline ChunkedArgs chunked_args(const RecurrenceInputs& inputs, const ChunkedPlan& plan) {
  const HeadDims& dims = inputs.dims;
  return {
      .tokens = static_cast<int>(dims.tokens),
      .heads = static_cast<int>(dims.heads),
      .segments = static_cast<int>(plan.segments),
      .segment_tokens = static_cast<int>(plan.segments == 1 ? dims.tokens : plan.segment_tokens),
      .decay = {dims, inputs.decay},
      .scale = {dims, inputs.scale}};
}
inline ChunkedPass chunked_pass(const RecurrenceInputs& inputs, Grade grade) {
  return {.d = inputs.dims.d_h,
          .lanes = inputs.dims.lanes(),
          .grade = grade,
          .along_r = inputs.r.data != nullptr ? AlongR::residual : AlongR::nothing,
          .decays = inputs.decay_kind == Decay::head};
}

/// Deals out ChunkedOptions::scratch.
class SegmentMemory {
 public:
  SegmentMemory(const HeadDims& dims, const ChunkedOptions& options)
      : slots_(dims.lanes() * options.plan.segments),
        d_(kernel_head_size(dims.d_h)),
        next_(options.scratch) {}
  void give(ChunkedArgs& args, bool with_maps) {
    args.states = take((d_ + 1) * d_);
    args.maps = with_maps ? take(d_ * d_) : nullptr;
    args.factors = take(1);
  }

 private:
  float* take(Index size) {
    next_ += slots_ * size;
    return next_ - slots_ * size;
  }

  Index slots_, d_;
  float* next_;
};

/// chunk_join.cu: M behind each segment, in the place of what the segment does to zeros.
void join_segments(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);

/// What the segments do to the M that enters them, and the passes themselves.
void start_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);
void run_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);
void start_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);
void run_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args);

}  // namespace vla_bench::mixers::cuda
