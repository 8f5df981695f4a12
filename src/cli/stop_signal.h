// SIGINT and SIGTERM as a request to stop at the next safe place.
#pragma once

#include <atomic>

namespace vla_bench::cli {

/// The first SIGINT or SIGTERM sets the flag; another one ends the process at once, as without a
/// handler, unless it follows within a second: schedulers signal a job's script, which may pass it
/// on, and its processes.
void install_stop_handlers();

/// Set by a signal; training checkpoints and returns when it sees it.
const std::atomic<bool>& stop_requested();

/// 130 after SIGINT (the shell's 128 + 2), 75 after SIGTERM (EX_TEMPFAIL: schedulers start the same
/// command again, which goes on from the checkpoint).
int stop_exit_code();

}  // namespace vla_bench::cli
