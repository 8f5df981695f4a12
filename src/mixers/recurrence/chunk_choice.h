// Whether a GPU's production takes a lane's tokens in chunks (chunked.h) or one after the other.
//
// By the time of a forward and a backward together in float32 on one H200, recurrent over chunked:
//   lanes  d     T = 64    128    256    512   1,024
//       4  64 delta .81    .77    .74    1.3    2.3
//     128  64      1.4     1.5
//       4  64 linear .60   .61    .79    1.4    2.5   (its sum of keys walks a lane apart)
//     128  64      1.1     1.2
//       4  64 VLA   .93    .99    1.05   1.5    1.8
//     128  64      1.2     1.3
// A block takes a lane and a whole multiprocessor in chunks, the fraction of one token by token:
// heads of 32 with more lanes than multiprocessors win from 512 tokens on (a training step of 256
// lanes: linear .91, delta .94, VLA .90 at T = 73, 1.02, 1.00, 1.05 at 512, 1.05, 1.00, 1.08 at
// 1,024). Few lanes gain from segments, which take some 512 tokens too.
#pragma once

#include "mixers/mixer.h"
#include "mixers/recurrence/form.h"

namespace vla_bench::mixers {

/// `has_chain`: beside S there is a matrix with a recurrence of its own, as VLA's A. A decay with a
/// gradient and one per channel have no backward in chunks.
inline bool chunks_are_faster(const RecurrenceForm& form, bool has_chain, const HeadDims& dims) {
  const bool exists = form.decay == Decay::none || form.decay == Decay::head;
  if (!exists || form.decay_has_gradient) return false;
  Index least = 512;  // tokens
  if (dims.d_h >= 64 && has_chain) least = 192;
  if (dims.d_h >= 64 && dims.lanes() >= 64) least = 64;
  return dims.tokens >= least;
}

}  // namespace vla_bench::mixers
