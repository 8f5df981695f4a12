// The work of a mixer's core, counted from its mathematics, so that rates of different kernels can
// be compared. Extra work of a kernel (recomputation, saved tensors) shows as a lower rate.
#pragma once

#include "config/config.h"
#include "mixers/mixer.h"

namespace vla_bench {

struct Work {
  Index flop = 0;   // two for each multiply-add
  Index bytes = 0;  // each input read once, each output written once
};

/// Multiply-adds are those of the mathematics in <name>.h: of a recurrence recurrence.h's, unless
/// the mixer counts its own (token_cost, chain_multiply_adds of a matrix beside the state, or
/// multiply_adds of a whole sequence).
///
/// Features, norms and gates, of order d, are not counted. Forward reads all projections and writes
/// o; backward reads these, o and d_o, and writes the projections' gradients. What a core saves for
/// its backward is not counted. `element_bytes` is the size of a stored number.
Work core_work(const MixerConfig& mixer, const HeadDims& dims, LatencyPass pass,
               Index element_bytes);

}  // namespace vla_bench
