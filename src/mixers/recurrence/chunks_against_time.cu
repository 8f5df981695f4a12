// chunk_passes.h: passes against time, of one head size.
#include "mixers/recurrence/chunk_state.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <int D, AlongR kAlongR, bool kPuts, Decay... kDecays>
void launch(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  with_chunks<float, kDecays...>(pass, [&](auto grade, auto decay) {
    using Rule = ChunkRule<D, grade, Order::against_time, kAlongR, decay, false, kPuts>;
    launch_chunks<Rule>(stream, args, pass.lanes);
  });
}

}  // namespace

template <int D>
void start_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  using enum Decay;
  if (pass.along_r == AlongR::residual) {
    return launch<D, AlongR::residual, false, none, head, columns>(stream, pass, args);
  }
  launch<D, AlongR::nothing, false, none, head, columns>(stream, pass, args);
}
template <int D>
void run_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  using enum Decay;
  switch (pass.along_r) {
    case AlongR::nothing:
      return launch<D, AlongR::nothing, true, none, head, columns, rows>(stream, pass, args);
    case AlongR::residual:
      return launch<D, AlongR::residual, true, none, head, columns>(stream, pass, args);
    case AlongR::known:
      return launch<D, AlongR::known, true, none, head, rows>(stream, pass, args);
  }
}
#define VLA_INSTANTIATE(d)                                                                   \
  template void start_against_time<d>(cudaStream_t, const ChunkedPass&, const ChunkedArgs&); \
  template void run_against_time<d>(cudaStream_t, const ChunkedPass&, const ChunkedArgs&);
VLA_FOR_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
