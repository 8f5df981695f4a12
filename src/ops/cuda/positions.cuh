// Positions of a batch.
#pragma once

#include <cuda_runtime.h>

#include "core/index.h"

namespace vla_bench::ops::cuda {

/// Returns the token t of row b * T + t, by a 32-bit remainder: a batch has fewer than 2^31
/// positions (lists of positions are 32-bit), and a 64-bit remainder costs ten times as much.
__device__ inline Index token_of_row(Index row, Index tokens_per_row) {
  return static_cast<unsigned>(row) % static_cast<unsigned>(tokens_per_row);
}

}  // namespace vla_bench::ops::cuda
