// chunked_cuda.h: passes in time, and the forward.
#include <algorithm>

#include "mixers/recurrence/chunk_state.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <int D, Grade kGrade, AlongR kAlongR, bool kDecays, bool kNormalises, bool kPuts>
void launch(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  launch_chunks<ChunkRule<D, kGrade, Order::in_time, kAlongR, kDecays, kNormalises, kPuts>>(
      stream, args, pass.lanes);
}

template <bool kPuts>
void launch_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  with_chunks(pass, [&](auto d, auto grade, auto decays) {
    if (pass.along_r == AlongR::residual) {
      return launch<d, grade, AlongR::residual, decays, false, kPuts>(stream, pass, args);
    }
    if constexpr (kPuts) {
      if (pass.along_r == AlongR::known) {
        return launch<d, grade, AlongR::known, decays, false, kPuts>(stream, pass, args);
      }
    }
    if constexpr (!decays) {
      if (pass.normalises) {
        return launch<d, grade, AlongR::nothing, false, true, kPuts>(stream, pass, args);
      }
    }
    launch<d, grade, AlongR::nothing, decays, false, kPuts>(stream, pass, args);
  });
}

Index ceil_div(Index x, Index y) { return (x + y - 1) / y; }

}  // namespace

void start_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  launch_in_time<false>(stream, pass, args);
}
void run_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  launch_in_time<true>(stream, pass, args);
}

ChunkedPlan plan_segments(const HeadDims& dims, int multiprocessors) {
  const Index room = std::max<Index>(1, multiprocessors / dims.lanes());
  const Index most = std::max<Index>(1, dims.tokens / kLeastSegmentTokens);
  const Index tokens = ceil_div(dims.tokens, std::min(room, most));
  const Index segment = ceil_div(tokens, kChunkTokens) * kChunkTokens;
  return {.segments = ceil_div(dims.tokens, segment), .segment_tokens = segment};
}

Index chunked_scratch_size(const HeadDims& dims, const ChunkedPlan& plan) {
  return plan.segments == 1 ? 0 : segments_size(dims, plan);
}

void chunked_forward(cudaStream_t stream, const RecurrenceInputs& inputs,
                     const RecurrenceForward& args, const ChunkedOptions& options) {
  const HeadDims& dims = inputs.dims;
  ChunkedArgs chunked = chunked_args(inputs, options.plan);
  chunked.r = {dims, inputs.r};
  chunked.a = {dims, inputs.a};
  chunked.q = {dims, inputs.q};
  chunked.v = {dims, args.v};
  chunked.o = {dims, args.o};
  chunked.e = {dims, args.e};
  chunked.denominator = args.denominator;
  chunked.floor = args.floor;
  ChunkedPass pass = chunked_pass(inputs, options.grade);
  pass.normalises = args.denominator != nullptr;
  if (options.plan.segments > 1) {
    give_segments(dims, options.plan, options.scratch, chunked);
    start_in_time(stream, pass, chunked);
    join_segments(stream, pass, chunked);
  }
  run_in_time(stream, pass, chunked);
}

}  // namespace vla_bench::mixers::cuda
