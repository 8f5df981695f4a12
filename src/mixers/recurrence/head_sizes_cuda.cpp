// recurrence_cuda.h and chunk_passes.h for any head size, by what is compiled once for each.
#include "mixers/recurrence/chunk_passes.h"
#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench::mixers::cuda {

void recurrence_forward(cudaStream_t stream, const RecurrenceInputs& inputs,
                        const RecurrenceForward& args) {
  with_rule_head_size(inputs.dims.d_h,
                      [&](auto d) { recurrence_forward<d>(stream, inputs, args); });
}
void recurrence_backward(cudaStream_t stream, const RecurrenceInputs& inputs,
                         const RecurrenceBackward& args) {
  with_rule_head_size(inputs.dims.d_h, [&](auto d) {
    recurrence_backward_rows<d>(stream, inputs, args);
    recurrence_backward_columns<d>(stream, inputs, args);
  });
}

template <class T>
void start_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args) {
  with_head_size(pass.d, [&](auto d) { start_in_time<d>(stream, pass, args); });
}
template <class T>
void run_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args) {
  with_head_size(pass.d, [&](auto d) { run_in_time<d>(stream, pass, args); });
}
template void start_in_time(cudaStream_t, const ChunkedPass&, const ChunkedArgs&);
template void run_in_time(cudaStream_t, const ChunkedPass&, const ChunkedArgs&);
template void start_in_time(cudaStream_t, const ChunkedPass&, const ChunkedArgsOf<Bfloat16>&);
template void run_in_time(cudaStream_t, const ChunkedPass&, const ChunkedArgsOf<Bfloat16>&);

void start_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  with_head_size(pass.d, [&](auto d) { start_against_time<d>(stream, pass, args); });
}
void run_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  with_head_size(pass.d, [&](auto d) { run_against_time<d>(stream, pass, args); });
}

}  // namespace vla_bench::mixers::cuda
