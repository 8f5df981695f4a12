// The CUDA side of the registry. A build without CUDA links no_cuda/mixers_no_cuda.cpp.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

/// `implementation` is not the reference; unfused and cudnn are asked for with softmax
/// alone, sequential with vla.
Support cuda_mixer_support(const MixerConfig& config, Index d_h, Implementation implementation);

/// Throws RunError with cuda_mixer_support's reason.
template <class T>
std::unique_ptr<MixerCore<T>> make_cuda_core(const MixerConfig& config, Index d_h,
                                             Implementation implementation);

}  // namespace vla_bench::mixers
