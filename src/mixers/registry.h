// Makes a mixer's core for a device; the only code that chooses one.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench {

Support mixer_support(const MixerConfig& config, Index d_h, Device device,
                      Implementation implementation);

/// Instantiated for float and double; Implementation::reference exists only for double on the CPU.
/// Throws RunError with mixer_support's reason.
template <class T>
std::unique_ptr<MixerCore<T>> make_mixer_core(const MixerConfig& config, Index d_h, Device device,
                                              Implementation implementation);

/// What `production` stands for at these sizes: of a recurrence `recurrent` or, on a GPU, `chunked`
/// where that is faster (recurrence/chunk_choice.h). Every other implementation is itself.
Implementation resolved(Implementation implementation, const MixerConfig& config,
                        const HeadDims& dims, Device device);

/// Whether a supported implementation has this pass: unfused softmax and sequential VLA have no
/// backward.
Support pass_support(Implementation implementation, LatencyPass pass);

/// The precision of a core's products when the context asks for `asked`: on a GPU softmax follows
/// the context, and chunks do so with TF32 in the place of bf16 where they have no bfloat16 tensors
/// (recurrence/chunk_choice.h); cuDNN's attention exists only for 16-bit tensors. Not for the
/// reference, which computes in float64.
Precision implementation_precision(const MixerConfig& config, Device device,
                                   Implementation implementation, LatencyPass pass,
                                   Precision asked);

/// The name of an implementation in tables: "recurrent", "chunked", "tiled", "sequential",
/// "unfused", "cudnn", "reference".
std::string_view implementation_label(const MixerConfig& config, Implementation implementation);

}  // namespace vla_bench
