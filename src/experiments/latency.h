// Timing of the mixers' cores alone (no projections), after their results have been checked.
//
// What a row measures. Production code runs in float, the reference in double. "forward" is
// inference (nothing kept for a backward), "backward" the backward alone, after one forward.
//   CPU  repeated calls on the same buffers, so inputs, outputs and code are as warm as the caches
//        can hold them.
//   GPU  by events, the host left out (bench/device_timer.h), going round sets of buffers that
//        together are larger than twice the L2 cache: inputs come from memory, as they do in a
//        model whose other layers ran in between. (512 sets at most: of 64 tokens in bfloat16, as
//        cuDNN reads them, that many just exceed the cache once.)
//
// precision: what the core computes its products in: the config's for softmax on a GPU, bf16 for
// cuDNN, float64 for the reference, else float32.
// flop, bytes: counted from the mathematics (mixers/work.h), the same for every implementation but
// for the size of a number; flop_per_s and bytes_per_s are these over the median.
// sgemm_flop_per_s, copy_bytes_per_s: what the machine reached in the same process
// (bench/ceilings.h) at the row's precision; none is measured in float64.
// state_bytes: recurrent state (softmax: K V cache) of the whole batch at the end of the sequence.
// activation_bytes: what a forward that trains keeps for its backward, in both passes' rows.
// relative_error: half the width of the median's 95% interval over the median, empty where there
// are too few repeats. An ok row that did not reach the config's says so in its reason. A core that
// disagrees with the reference has failed; where the mathematics leaves the range of float32 the
// row is diverged. Neither is timed. Verified: all values over 64 tokens
// (verify_against_reference), and what can be over the whole length (whole_length.h).
#pragma once

#include <string>

#include "config/config.h"
#include "mixers/mixer.h"

namespace vla_bench {

/// Largest error against the reference, relative to the largest value, of a core that computes in
/// `precision`; a wrong kernel is off by order 1.
double allowed_error(Precision precision);

/// The shape that verification looks at: the config's, over min(T, 64) tokens.
HeadDims verified_dims(const RunConfig& config);

/// Runs `core` (an `implementation` of the config's mixer) and the mixer's reference on the same
/// inputs, forward and, where there is one, backward, in that shape. Empty when they agree to what
/// the precision of the core allows, else what differs and by how much.
std::string verify_against_reference(const RunConfig& config, const Context& context,
                                     Implementation implementation, MixerCore<float>& core);

}  // namespace vla_bench
