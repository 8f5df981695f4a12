// Whether a GPU's production takes a lane's tokens in chunks (chunked.h) or one after the other.
//
// By the time of a forward and a backward together in float32 on one H200, recurrent over chunked:
//   lanes  d     T = 64    128    256    512   1,024
//       4  64 delta .81    .77    .74    1.3    2.3
//     128  32      1.06    1.2    1.3
//     128  64      1.4     1.5
//       4  64 linear .60   .61    .79    1.4    2.5   (its sum of keys walks a lane apart)
//     128  32       .70    .71    .91
//     128  64      1.1     1.2
//       4  64 VLA   .93    .99    1.05   1.5    1.8
//     128  32       .95   1.0     1.1
//     128  64      1.2     1.3
// A lane alone on a multiprocessor gains from segments only, which take some 512 tokens.
#pragma once

#include "mixers/mixer.h"
#include "mixers/recurrence/form.h"

namespace vla_bench::mixers {

/// Whether there are passes in chunks: a forward, and a backward.
inline bool chunks_exist(const RecurrenceForm& form) { return form.decay != Decay::rows; }
inline bool backward_chunks_exist(const RecurrenceForm& form) {
  return form.decay == Decay::none || form.decay == Decay::head;
}

/// `has_chain`: beside S there is a matrix with a recurrence of its own, as VLA's A.
inline bool chunks_are_faster(const RecurrenceForm& form, bool has_chain, const HeadDims& dims) {
  if (!backward_chunks_exist(form) || dims.tokens < 64) return false;
  const Index channels = dims.lanes() * dims.d_h;  // of all lanes: the work of a token
  if (has_chain) return dims.tokens >= 192 || channels >= 8192;
  const bool sums_keys = form.normalises() && !form.has_residual();
  return dims.tokens >= 512 || channels >= (sums_keys ? 8192 : 4096);
}

/// Whether the forward in chunks reads and writes tensors in bfloat16 where that is the precision;
/// the others, and every backward, compute as in TF32.
inline bool chunks_store_bf16(const RecurrenceForm& form, bool has_chain) {
  return backward_chunks_exist(form) && !has_chain &&
         (!form.normalises() || form.normalises_beside_rows());
}

}  // namespace vla_bench::mixers
