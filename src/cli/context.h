// The device and the threads of a subcommand.
#pragma once

#include <string>

#include "core/threads.h"
#include "ops/ops.h"

namespace vla_bench::cli {

/// The choice of core/threads.h; logs its warning once per process. Throws BadInput.
int resolve_threads(Index requested);

/// `device` is auto, cpu or cuda. Throws BadInput when it is not available.
Context make_context(const std::string& device, Index threads);

}  // namespace vla_bench::cli
