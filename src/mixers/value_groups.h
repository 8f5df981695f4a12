// The memory of a head whose values have several groups of d channels (HeadDims::value_groups).
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench {

/// A memory of the core's for each group, which take the same keys; its state's Jacobian, a map of
/// key channels, is that of each. With one group the core's own memory.
template <class T>
std::unique_ptr<HeadMemory<T>> head_memory(const MixerCore<T>& core, const HeadDims& dims,
                                           Index head = 0);

}  // namespace vla_bench
