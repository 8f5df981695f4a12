// Whether a GPU's production takes a lane's tokens in chunks (chunked.h) or one after the other.
//
// By the time of a forward and a backward together in float32 on one H200, recurrent over chunked:
//   lanes  d     T = 64    128    256    512   1,024
//       4  64 delta .81    .77    .74    1.3    2.3
//     128  64      1.4     1.5
//       4  64 linear .60   .61    .79    1.4    2.5   (its sum of keys walks a lane apart)
//     128  64      1.1     1.2
//       4  64 gated .75          .81    1.5    2.7    mamba2 .78, .89, 1.8, 3.3
//     128  64      1.2          1.5    1.6    1.8           1.1, 1.5, 1.6, 1.8
//     256  32       .83          .93    .98   1.0           1.0, 1.3, 1.3, 1.4
//       4  64 gla   .54          .55    1.4    2.5    kda    .57, .59, 1.2, 2.1
//     128  64      1.0          1.2    1.2    1.2           1.1, 1.2, 1.2, 1.2
//     256  32       .73          .90    .98   1.0            .56, .60, .64, .64
// (gated: gated_deltanet, a decay per head with a gradient; gla and kda: one per key channel, whose
// products inside a pair of tokens are no matrix products).
// A block takes a lane and a whole multiprocessor in chunks, the fraction of one token by token:
// heads of 32 with more lanes than multiprocessors win from 512 tokens on (a training step of 256
// lanes: linear .91, delta .94 at T = 73, 1.02, 1.00 at 512, 1.05, 1.00 at 1,024). Few lanes gain
// from segments, which take some 512 tokens too. VLA's A, whose token is a longer chain, gains
// earlier: of 256 lanes with d = 32 1.2 at T = 73, 1.4 at 512; of 4 with d = 64 3.2 at 2,048. A
// step of 512 lanes with d = 32 is 2 to 4% slower so at T = 64 and 256, with d = 64 13% faster.
#pragma once

#include "mixers/mixer.h"
#include "mixers/recurrence/form.h"

namespace vla_bench::mixers {

/// The largest d whose chunks a multiprocessor has room for.
inline constexpr Index kLargestChunkedHead = 128;

/// Whether there are passes in chunks, for heads of up to kLargestChunkedHead channels.
inline bool chunks_exist(const RecurrenceForm& form) { return form.decay != Decay::rows; }

/// Of S. With a decay per key channel heads of less than 64 gain only from segments: of few lanes.
inline bool chunks_are_faster(const RecurrenceForm& form, const HeadDims& dims) {
  if (!chunks_exist(form) || dims.d_h > kLargestChunkedHead) return false;
  if (form.decay == Decay::columns && dims.d_h < 64 && dims.lanes() > 16) return false;
  const bool fills_chip = dims.d_h >= 64 && dims.lanes() >= 64;
  return dims.tokens >= (fills_chip ? 64 : 512);
}

/// Of a matrix beside S that has a recurrence of its own, as VLA's A: wherever S's are, and before.
inline bool chain_chunks_are_faster(const HeadDims& dims) {
  return dims.tokens >= (dims.d_h >= 64 || dims.lanes() <= 256 ? 64 : 512);
}

/// Whether the forward in chunks reads and writes tensors in bfloat16 where that is the precision;
/// the others, and every backward, compute as in TF32.
inline bool chunks_store_bf16(const RecurrenceForm& form) {
  return chunks_exist(form) && form.decay != Decay::columns && !form.has_running_sum &&
         !form.solves_reads &&
         (!form.normalises() || form.normalises_beside_rows() || form.has_f());
}

}  // namespace vla_bench::mixers
