// The registry of GPU cores. A build without CUDA links no_cuda/mixers_no_cuda.cpp.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

/// `implementation` must be one that the mixer has, other than the reference.
Support cuda_mixer_support(const MixerConfig& config, Index d_h, Implementation implementation);

/// Throws RunError with cuda_mixer_support's reason.
template <class T>
std::unique_ptr<MixerCore<T>> make_cuda_core(const MixerConfig& config, Index d_h,
                                             Implementation implementation);

/// Whether there are kernels for heads of d_h channels: of all mixers, or of one whose largest are
/// known.
Support head_size_support(Index d_h);
Support head_size_support(Index d_h, Index largest);

}  // namespace vla_bench::mixers
