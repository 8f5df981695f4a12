// Where and how wide a subcommand runs.
#pragma once

#include <string>

#include "ops/ops.h"

namespace vla_bench::cli {

inline constexpr Index kMostThreads = 4096;

/// Threads to use: `requested`, or all cores this process may run on when it is 0. Throws BadInput
/// outside 0 .. 4096.
int resolve_threads(Index requested);

/// `device` is auto, cpu or cuda. Throws BadInput when it is not there.
Context make_context(const std::string& device, Index threads);

}  // namespace vla_bench::cli
