// Whether the mathematics of a config stays within the range of the numbers that kernels compute
// in.
#pragma once

#include <string>

#include "config/config.h"
#include "ops/ops.h"

namespace vla_bench {

/// What is said of a latency config whose double reference leaves the range of float32, forward or
/// backward, over the tokens that verification looks at: no kernel can be right or wrong about such
/// values. Empty when it stays within.
std::string beyond_float32(const RunConfig& config, const Context& context);

}  // namespace vla_bench
