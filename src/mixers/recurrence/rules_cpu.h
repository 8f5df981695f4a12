// Every rule of the list (mixers/list.h) on the CPU.
#pragma once

#include <memory>

#include "mixers/list.h"
#include "mixers/recurrence/recurrence.h"

namespace vla_bench::mixers {

/// The rule of a mixer that has no matrix beside S; null for the others. Instantiated for float and
/// double.
template <class T>
std::unique_ptr<RecurrentRule<T>> make_cpu_rule(const MixerOptions& options, Index d);

}  // namespace vla_bench::mixers
