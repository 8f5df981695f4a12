// VLA one token at a time, as a loop over tokens in Python runs it: what the fused scan is compared
// with. Every token's step is a call of its own and finds A, S and z in memory; the scan keeps them
// in registers or caches. Forward alone.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

/// Steps a HeadMemory through each lane; lanes are shared out over the threads.
template <class T>
std::unique_ptr<MixerCore<T>> make_sequential_vla_core(const MixerConfig& config, Index d_h);

/// A launch a token, all lanes in it; d of 8, 16, 32, 64 or 128. The launches of a forward wait in
/// the stream's queue behind one another, so the host is not part of what a timer sees.
std::unique_ptr<MixerCore<float>> make_sequential_vla_cuda_core(const MixerConfig& config,
                                                                Index d_h);

}  // namespace vla_bench::mixers
