// chunked_cuda.h: passes in time, and the forward.
#include <algorithm>

#include "mixers/recurrence/chunk_state.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <int D, Grade kGrade, AlongR kAlongR, Decay kDecay, bool kNormalises, bool kPuts>
void launch(cudaStream_t stream, const ChunkedPass& pass,
            const ChunkedArgsOf<Stored<kGrade>>& args) {
  launch_chunks<ChunkRule<D, kGrade, Order::in_time, kAlongR, kDecay, kNormalises, kPuts>>(
      stream, args, pass.lanes);
}

template <bool kPuts, class T>
void launch_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args) {
  constexpr bool kColumns = std::is_same_v<T, float>;
  with_chunks<T, kColumns>(pass, [&](auto d, auto grade, auto decay) {
    if (pass.along_r == AlongR::residual) {
      return launch<d, grade, AlongR::residual, decay, false, kPuts>(stream, pass, args);
    }
    // The backward's.
    if constexpr (kPuts && grade != Grade::bf16 && decay != Decay::columns) {
      if (pass.along_r == AlongR::known) {
        return launch<d, grade, AlongR::known, decay, false, kPuts>(stream, pass, args);
      }
    }
    if constexpr (decay == Decay::none) {
      if (pass.normalises) {
        return launch<d, grade, AlongR::nothing, decay, true, kPuts>(stream, pass, args);
      }
    }
    launch<d, grade, AlongR::nothing, decay, false, kPuts>(stream, pass, args);
  });
}

Index ceil_div(Index x, Index y) { return (x + y - 1) / y; }

}  // namespace

template <class T>
void start_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args) {
  launch_in_time<false>(stream, pass, args);
}
template <class T>
void run_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args) {
  launch_in_time<true>(stream, pass, args);
}
template void start_in_time(cudaStream_t, const ChunkedPass&, const ChunkedArgs&);
template void run_in_time(cudaStream_t, const ChunkedPass&, const ChunkedArgs&);
template void start_in_time(cudaStream_t, const ChunkedPass&, const ChunkedArgsOf<Bfloat16>&);
template void run_in_time(cudaStream_t, const ChunkedPass&, const ChunkedArgsOf<Bfloat16>&);

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
