// chunk_passes.h: passes in time, of one head size.
#include "mixers/recurrence/chunk_state.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <int D, Grade kGrade, AlongR kAlongR, Decay kDecay, bool kNormalises, bool kPuts>
void launch(cudaStream_t stream, const ChunkedPass& pass,
            const ChunkedArgsOf<Stored<kGrade>>& args) {
  launch_chunks<ChunkRule<D, kGrade, Order::in_time, kAlongR, kDecay, kNormalises, kPuts>>(
      stream, args, pass.lanes);
}

template <int D, bool kPuts, class T>
void launch_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args) {
  const auto launch_rule = [&](auto grade, auto decay) {
    if constexpr (decay != Decay::rows) {
      if (pass.along_r == AlongR::residual) {
        return launch<D, grade, AlongR::residual, decay, false, kPuts>(stream, pass, args);
      }
    }
    // The backward's.
    if constexpr (kPuts && grade != Grade::bf16 && decay != Decay::columns) {
      if (pass.along_r == AlongR::known) {
        return launch<D, grade, AlongR::known, decay, false, kPuts>(stream, pass, args);
      }
    }
    if constexpr (decay == Decay::none) {
      if (pass.normalises) {
        return launch<D, grade, AlongR::nothing, decay, true, kPuts>(stream, pass, args);
      }
    }
    launch<D, grade, AlongR::nothing, decay, false, kPuts>(stream, pass, args);
  };
  using enum Decay;
  if constexpr (!std::is_same_v<T, float>) {
    with_chunks<T, none, head>(pass, launch_rule);
  } else if constexpr (kPuts) {
    with_chunks<T, none, head, columns, rows>(pass, launch_rule);
  } else {
    with_chunks<T, none, head, columns>(pass, launch_rule);
  }
}

}  // namespace

template <int D, class T>
void start_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args) {
  launch_in_time<D, false>(stream, pass, args);
}
template <int D, class T>
void run_in_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgsOf<T>& args) {
  launch_in_time<D, true>(stream, pass, args);
}
#define VLA_INSTANTIATE(d)                                                              \
  template void start_in_time<d>(cudaStream_t, const ChunkedPass&, const ChunkedArgs&); \
  template void run_in_time<d>(cudaStream_t, const ChunkedPass&, const ChunkedArgs&);   \
  template void start_in_time<d>(cudaStream_t, const ChunkedPass&,                      \
                                 const ChunkedArgsOf<Bfloat16>&);                       \
  template void run_in_time<d>(cudaStream_t, const ChunkedPass&, const ChunkedArgsOf<Bfloat16>&);
VLA_FOR_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
