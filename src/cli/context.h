// Where and how wide a subcommand runs.
#pragma once

#include <string>

#include "core/threads.h"
#include "ops/ops.h"

namespace vla_bench::cli {

/// core/threads.h's choice; its warning is logged once a process. Throws BadInput.
int resolve_threads(Index requested);

/// `device` is auto, cpu or cuda. Throws BadInput when it is not there.
Context make_context(const std::string& device, Index threads);

}  // namespace vla_bench::cli
