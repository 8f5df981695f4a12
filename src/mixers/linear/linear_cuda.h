// Linear attention's core on a GPU: float, d of 16, 32, 64 or 128.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

std::unique_ptr<MixerCore<float>> make_linear_cuda_core(const MixerConfig& config, Index d_h);

}  // namespace vla_bench::mixers
