// Checks a core before it is timed: its values over 64 tokens against the mixer's reference.
#pragma once

#include <string>

#include "config/config.h"
#include "mixers/mixer.h"

namespace vla_bench {

/// Largest error against the reference, relative to the largest value, of a core that computes in
/// `precision`; a wrong kernel is off by order 1.
double allowed_error(Precision precision);

/// The shape of the verification: the config's, over min(T, 64) tokens.
HeadDims verified_dims(const RunConfig& config);

/// Runs `core` (an `implementation` of the config's mixer) and the mixer's reference on the same
/// inputs of that shape, forward and, if there is one, backward. Returns "" when they agree within
/// the core's precision, else what differs and by how much.
std::string verify_against_reference(const RunConfig& config, const Context& context,
                                     Implementation implementation, MixerCore<float>& core);

}  // namespace vla_bench
