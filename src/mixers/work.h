// The work of a mixer's core, counted from its mathematics: what rates of different kernels are
// compared by. A kernel may do more (recompute, keep) or spread it differently; that shows as a
// lower rate.
#pragma once

#include "config/config.h"
#include "mixers/mixer.h"

namespace vla_bench {

struct Work {
  Index flop = 0;   // two for each multiply-add
  Index bytes = 0;  // each input read once, each output written once
};

/// Multiply-adds per head, of the mathematics in <name>.h; at position t (from 1) or per token:
///
///                forward   backward
///   softmax      2 t d     5 t d
///   linear       2 d^2     6 d^2
///   deltanet     3 d^2     9 d^2    (three passes over S or dS)
///   vla          6 d^2     16 d^2   (2 of them recompute A and S)
///   vla, frozen  3 d^2     7 d^2    (the path of S alone: A stays I / lambda_0)
///
/// Features, norms and gates, of order d, are not counted. Forward reads q, k, v, aux and writes o;
/// backward reads these, o and d_o, and writes dq, dk, dv and daux. What a core saves for its
/// backward is its own choice and not counted. `element_bytes` is the size of a stored number.
Work core_work(const MixerConfig& mixer, const HeadDims& dims, LatencyPass pass,
               Index element_bytes);

}  // namespace vla_bench
