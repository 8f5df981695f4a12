// The forward of chunked_cuda.h, and how it cuts a lane.
#include <algorithm>

#include "mixers/recurrence/chunk_passes.h"

namespace vla_bench::mixers::cuda {
namespace {

Index ceil_div(Index x, Index y) { return (x + y - 1) / y; }

}  // namespace

ChunkedPlan plan_segments(const HeadDims& dims, bool has_residual, int multiprocessors) {
  constexpr Index kFewest = 3;  // two passes over half of the tokens take as long as one over all
  const Index blocks = multiprocessors * blocks_of_multiprocessor(dims.d_h, has_residual);
  const Index most = std::min(blocks / dims.lanes(), dims.tokens / kLeastSegmentTokens);
  const Index tokens = most < kFewest ? dims.tokens : ceil_div(dims.tokens, most);
  const Index segment = ceil_div(tokens, kChunkTokens) * kChunkTokens;
  return {.segments = ceil_div(dims.tokens, segment), .segment_tokens = segment};
}

Index chunked_scratch_size(const HeadDims& dims, const ChunkedPlan& plan) {
  return plan.segments == 1 ? 0 : segments_size(dims, plan);
}

template <class T>
void chunked_forward(cudaStream_t stream, const RecurrenceInputsOf<T>& inputs,
                     const RecurrenceForwardOf<T>& args, const ChunkedOptions& options) {
  const HeadDims& dims = inputs.dims;
  ChunkedArgsOf<T> chunked = chunked_args(inputs, options.plan);
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
template void chunked_forward(cudaStream_t, const RecurrenceInputs&, const RecurrenceForward&,
                              const ChunkedOptions&);
template void chunked_forward(cudaStream_t, const RecurrenceInputsOf<Bfloat16>&,
                              const RecurrenceForwardOf<Bfloat16>&, const ChunkedOptions&);

}  // namespace vla_bench::mixers::cuda
