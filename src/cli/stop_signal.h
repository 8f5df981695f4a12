// SIGINT and SIGTERM as a request to stop at the next safe point.
#pragma once

#include <atomic>

namespace vla_bench::cli {

/// The first SIGINT or SIGTERM sets the flag; a later one ends the process at once, as without a
/// handler, unless it comes within a second, since schedulers signal both a job's script, which may
/// forward the signal, and its processes.
void install_stop_handlers();

/// Set by a signal; training then writes a checkpoint and returns.
const std::atomic<bool>& stop_requested();

/// 130 after SIGINT (the shell's 128 + 2), 75 after SIGTERM (EX_TEMPFAIL: schedulers start the same
/// command again, which resumes from the checkpoint).
int stop_exit_code();

}  // namespace vla_bench::cli
