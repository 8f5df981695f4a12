// The curriculum of mqar in the paper's layout (task.curriculum), for the CPU and CUDA kernels
// alike.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace vla_bench {

/// Distinct pairs in the rows of training batch `index` when they grow from 1 to n over the first
/// `curriculum` batches; 0: n from the start.
VLA_HOST_DEVICE inline std::int32_t distinct_pairs(std::int32_t n_pairs, std::int64_t curriculum,
                                                   std::int64_t index) {
  if (index >= curriculum) return n_pairs;
  // Both factors are below 2^31.
  return 1 + static_cast<std::int32_t>((n_pairs - 1) * index / curriculum);
}

}  // namespace vla_bench
