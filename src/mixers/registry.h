// The one place where a mixer's name and a device turn into code.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench {

Support mixer_support(const MixerConfig& config, Index d_h, Device device,
                      Implementation implementation);

/// Instantiated for float and double; Implementation::reference exists for double on the CPU alone.
/// Throws RunError with mixer_support's reason.
template <class T>
std::unique_ptr<MixerCore<T>> make_mixer_core(const MixerConfig& config, Index d_h, Device device,
                                              Implementation implementation);

/// How an implementation is called in tables: "recurrent", "tiled", "reference".
std::string_view implementation_label(const MixerConfig& config, Implementation implementation);

}  // namespace vla_bench
