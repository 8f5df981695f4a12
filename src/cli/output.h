// Standard output has only results; messages go to the log (standard error), so that
// `vla-bench report ... > file` writes only tables.
#pragma once

#include <string_view>

namespace vla_bench::cli {

/// Writes to standard output and flushes. Throws RunError when the system refuses (disk full).
void print(std::string_view text);

enum class Verbosity { quiet, normal, verbose };

/// Sends the process-wide log to standard error: warnings (quiet), information, or all (verbose).
void configure_log(Verbosity verbosity);

void log_debug(std::string_view message);
void log_info(std::string_view message);
void log_warning(std::string_view message);
void log_error(std::string_view message);

}  // namespace vla_bench::cli
