// Timing of the mixers' cores alone (no projections), after their results have been checked.
//
// What a row measures: repeated calls on the same buffers, so inputs, outputs and code are as warm
// as the caches can hold them. Production code runs in float, the reference in double. "forward" is
// inference (nothing kept for a backward), "backward" the backward alone, after one forward.
// state_bytes: recurrent state (softmax: K V cache) of the whole batch at the end of the sequence.
// activation_bytes: what a forward that trains keeps for its backward, in both passes' rows.
// A core that disagrees with the reference has failed; where the reference itself leaves the range
// of float32 the row is diverged, and nothing is timed.
#pragma once

#include <string>

#include "config/config.h"
#include "mixers/mixer.h"

namespace vla_bench {

/// Runs `production` and the mixer's reference on the same inputs, forward and backward, over
/// min(T, 64) tokens. Empty when they agree, else what differs and by how much.
std::string verify_against_reference(const RunConfig& config, const Context& context,
                                     MixerCore<float>& production);

}  // namespace vla_bench
