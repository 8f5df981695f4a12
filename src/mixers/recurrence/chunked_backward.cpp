// The backward of chunked_cuda.h.
#include "mixers/recurrence/chunk_passes.h"

namespace vla_bench::mixers::cuda {
namespace {

/// 8, 11 and 15: de. `chain` then has dS behind each segment, going against time.
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

/// S behind each segment: the forward's, or written again by e.
void give_states(cudaStream_t stream, const RecurrenceInputs& inputs,
                 const RecurrenceBackward& args, ChunkedPass pass, const ChunkedOptions& options,
                 ChunkedArgs& columns) {
  if (options.forward_scratch != nullptr) {
    columns.states = const_cast<float*>(options.forward_scratch);  // only read
    return;
  }
  pass.along_r = AlongR::nothing;
  columns.a = {inputs.dims, inputs.a};
  columns.v = {inputs.dims, args.e};
  start_in_time(stream, pass, columns);
  join_segments(stream, pass, columns);
}

/// 10: dq and dr from S.
void run_columns_in_time(cudaStream_t stream, const RecurrenceInputs& inputs,
                         const RecurrenceBackward& args, const ChunkedPass& pass,
                         ChunkedArgs columns) {
  const HeadDims& dims = inputs.dims;
  columns.a = {dims, args.e};
  columns.v = {dims, inputs.a};
  columns.q = {dims, args.d_o};
  columns.r = {dims, args.de};
  columns.o = {dims, args.dq};
  columns.e = {dims, args.dr};
  columns.transposed = true;
  run_in_time(stream, pass, columns);
}

/// 10: da from dS.
void run_columns_against_time(cudaStream_t stream, const RecurrenceInputs& inputs,
                              const RecurrenceBackward& args, const ChunkedPass& pass,
                              ChunkedArgs columns) {
  const HeadDims& dims = inputs.dims;
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

Index chunked_backward_scratch_size(const HeadDims& dims, const ChunkedPlan& plan,
                                    bool decay_has_gradient) {
  const Index d = kernel_head_size(dims.d_h);
  const Index chunks = decay_has_gradient ? dims.lanes() * chunks_of_lane(dims.tokens) : 0;
  return 2 * chunked_scratch_size(dims, plan) + chunks * (d * d + d);
}

void chunked_backward(cudaStream_t stream, const RecurrenceInputs& inputs,
                      const RecurrenceBackward& args, const ChunkedOptions& options) {
  const HeadDims& dims = inputs.dims;
  const ChunkedPass pass = chunked_pass(inputs, options.grade);
  ChunkedArgs against_time = chunked_args(inputs, options.plan);
  ChunkedArgs in_time = against_time;
  if (options.plan.segments > 1) {
    float* memory = options.scratch;
    give_segments(dims, options.plan, memory, against_time);
    give_segments(dims, options.plan, memory + segments_size(dims, options.plan), in_time);
    give_states(stream, inputs, args, pass, options, in_time);
  }
  if (args.ddecay.data != nullptr) {
    const Index d = kernel_head_size(dims.d_h);
    in_time.chunk_states = options.scratch + 2 * chunked_scratch_size(dims, options.plan);
    in_time.chunk_products =
        in_time.chunk_states + dims.lanes() * chunks_of_lane(dims.tokens) * d * d;
  }
  run_chain(stream, inputs, args, pass, against_time);
  against_time.chunk_states = in_time.chunk_states;
  against_time.chunk_products = in_time.chunk_products;
  ChunkedPass columns = pass;
  if (pass.along_r == AlongR::residual) columns.along_r = AlongR::known;
  columns.decay = transposed(pass.decay);
  run_columns_in_time(stream, inputs, args, columns, in_time);
  run_columns_against_time(stream, inputs, args, columns, against_time);
  if (args.ddecay.data != nullptr) {
    run_decay_gradient(stream, inputs, args, against_time.chunk_products);
  }
  if (args.normaliser.d_denominator != nullptr) {
    normaliser_backward(stream, dims, args.normaliser, options.sums);
  }
}

}  // namespace vla_bench::mixers::cuda
