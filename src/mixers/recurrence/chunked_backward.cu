// chunked_cuda.h: passes against time, and the backward.
#include "mixers/recurrence/chunk_state.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <AlongR kAlongR, bool kPuts>
void launch(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  with_chunks(pass, [&](auto d, auto grade, auto decays) {
    using Rule = ChunkRule<d, grade, Order::against_time, kAlongR, decays, false, kPuts>;
    launch_chunks<Rule>(stream, args, pass.lanes);
  });
}

/// 8, 11 and 15: de. Leaves dS behind each segment in `chain`.
void run_chain(cudaStream_t stream, const RecurrenceInputs& inputs, const RecurrenceBackward& args,
               const ChunkedPass& pass, ChunkedArgs& chain) {
  const HeadDims& dims = inputs.dims;
  chain.r = {dims, inputs.r};
  chain.a = {dims, inputs.a};
  chain.q = {dims, inputs.q};
  chain.v = {dims, args.d_o};
  chain.o = {dims, args.de};
  if (chain.segments > 1) {
    start_against_time(stream, pass, chain);
    join_segments(stream, pass, chain);
  }
  run_against_time(stream, pass, chain);
}

/// 10: dq and dr from S, written again by e.
void run_columns_in_time(cudaStream_t stream, const RecurrenceInputs& inputs,
                         const RecurrenceBackward& args, ChunkedPass pass, ChunkedArgs& columns) {
  const HeadDims& dims = inputs.dims;
  pass.along_r = AlongR::nothing;
  if (columns.segments > 1) {
    columns.a = {dims, inputs.a};
    columns.v = {dims, args.e};
    start_in_time(stream, pass, columns);
    join_segments(stream, pass, columns);
  }
  if (inputs.r.data != nullptr) pass.along_r = AlongR::known;
  columns.a = {dims, args.e};
  columns.v = {dims, inputs.a};
  columns.q = {dims, args.d_o};
  columns.r = {dims, args.de};
  columns.o = {dims, args.dq};
  columns.e = {dims, args.dr};
  columns.transposed = true;
  run_in_time(stream, pass, columns);
}

/// 10: da from dS, which `columns` has behind each segment.
void run_columns_against_time(cudaStream_t stream, const RecurrenceInputs& inputs,
                              const RecurrenceBackward& args, ChunkedPass pass,
                              ChunkedArgs columns) {
  const HeadDims& dims = inputs.dims;
  if (inputs.r.data != nullptr) pass.along_r = AlongR::known;
  columns.a = {dims, args.e};
  columns.q = {dims, args.d_o};
  columns.r = {dims, args.de};
  columns.v = {dims, inputs.q};
  columns.w = {dims, inputs.r};
  columns.o = {dims, args.da};
  columns.transposed = true;
  run_against_time(stream, pass, columns);
}

}  // namespace

void start_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  if (pass.along_r == AlongR::residual) return launch<AlongR::residual, false>(stream, pass, args);
  launch<AlongR::nothing, false>(stream, pass, args);
}
void run_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  switch (pass.along_r) {
    case AlongR::nothing:
      return launch<AlongR::nothing, true>(stream, pass, args);
    case AlongR::residual:
      return launch<AlongR::residual, true>(stream, pass, args);
    case AlongR::known:
      return launch<AlongR::known, true>(stream, pass, args);
  }
}

Index chunked_backward_scratch_size(const HeadDims& dims, const ChunkedPlan& plan) {
  if (plan.segments == 1) return 0;
  const Index d = kernel_head_size(dims.d_h);
  return dims.lanes() * plan.segments * (2 * (d + 1) * d + d * d + 2);
}

void chunked_backward(cudaStream_t stream, const RecurrenceInputs& inputs,
                      const RecurrenceBackward& args, const ChunkedOptions& options) {
  const ChunkedPass pass = chunked_pass(inputs, options.grade);
  ChunkedArgs chain = chunked_args(inputs, options.plan);
  ChunkedArgs columns = chain;
  if (options.plan.segments > 1) {
    SegmentMemory memory(inputs.dims, options);
    memory.give(chain, true);
    memory.give(columns, false);
  }
  run_chain(stream, inputs, args, pass, chain);
  run_columns_in_time(stream, inputs, args, pass, columns);
  run_columns_against_time(stream, inputs, args, pass, chain);
  if (args.normaliser.d_denominator != nullptr) {
    normaliser_backward(stream, inputs.dims, args.normaliser, options.sums);
  }
}

}  // namespace vla_bench::mixers::cuda
