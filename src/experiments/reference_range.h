// Whether the values of a config stay within the range of the kernels' numbers.
#pragma once

#include <atomic>
#include <optional>
#include <string>

#include "config/config.h"
#include "experiments/lane_memory.h"
#include "ops/ops.h"

namespace vla_bench {

/// The tokens at which a lane leaves the range of float32, counted from 1.
struct BeyondFloat32 {
  std::optional<Index> overflow;  // first token at which a memory stepped in float32 is not finite
  std::optional<Index> excess;    // at which one in float64 exceeds what float32 can square

  bool any() const { return overflow || excess; }
  /// The token for messages.
  Index token() const { return overflow ? *overflow : excess.value_or(0); }
};

/// Steps the lane to token `last` or to its overflow. Memories that keep tokens have no state that
/// could overflow. After a stop it returns what it has found.
template <class T>
BeyondFloat32 beyond_float32(const MixerConfig& mixer, const CoreBuffers<T>& buffers,
                             const Lane& lane, Index last, const std::atomic<bool>* stop = nullptr);

/// The message for a latency config that leaves the range of float32, forward or backward, within
/// the tokens verified against the whole reference, where no kernel can be right or wrong. "" when
/// it stays in range.
std::string beyond_float32(const RunConfig& config, const Context& context);

}  // namespace vla_bench
