// Whether the mathematics of a config stays within the range of the numbers that kernels compute
// in.
#pragma once

#include <atomic>
#include <optional>
#include <string>

#include "config/config.h"
#include "experiments/lane_memory.h"
#include "ops/ops.h"

namespace vla_bench {

/// Where float32 cannot follow a lane; tokens count from 1.
struct BeyondFloat32 {
  std::optional<Index> overflow;  // first token at which a memory stepped in float32 is not finite
  std::optional<Index> excess;    // at which one in float64 exceeds what float32 can square

  bool any() const { return overflow || excess; }
  /// The token to name.
  Index token() const { return overflow ? *overflow : excess.value_or(0); }
};

/// Steps the lane to token `last` or to its overflow. Memories that keep tokens have no state that
/// could leave the range. Once stopped it says what it has found.
template <class T>
BeyondFloat32 beyond_float32(const MixerConfig& mixer, const CoreBuffers<T>& buffers,
                             const Lane& lane, Index last, const std::atomic<bool>* stop = nullptr);

/// What is said of a latency config that leaves the range of float32, forward or backward, over the
/// tokens that are verified against the whole reference: no kernel can be right or wrong about such
/// values. Empty when it stays within.
std::string beyond_float32(const RunConfig& config, const Context& context);

}  // namespace vla_bench
