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

/// Whether an implementation that runs at all has this pass: softmax by the book and VLA token by
/// token have no backward.
Support pass_support(Implementation implementation, LatencyPass pass);

/// What a core computes its products in where the context asks for `asked`: softmax alone follows
/// the context, on a GPU, and cuDNN's attention exists for 16-bit tensors alone. Not for the
/// reference, which computes in float64.
Precision implementation_precision(const MixerConfig& config, Device device,
                                   Implementation implementation, Precision asked);

/// How an implementation is called in tables: "recurrent", "tiled", "sequential", "unfused",
/// "cudnn", "reference".
std::string_view implementation_label(const MixerConfig& config, Implementation implementation);

}  // namespace vla_bench
