// DeltaNet's core on a GPU, both variants: float, d of 16, 32, 64 or 128.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

std::unique_ptr<MixerCore<float>> make_deltanet_cuda_core(const MixerConfig& config, Index d_h);

}  // namespace vla_bench::mixers
