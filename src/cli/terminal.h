// The terminal of the output, if there is one.
#pragma once

#include <cstddef>
#include <optional>

namespace vla_bench::cli {

/// Columns of the terminal of a file descriptor: the variable COLUMNS if it is an integer, else the
/// terminal's own width, else 80. Empty when the descriptor is not a terminal.
std::optional<std::size_t> terminal_width(int descriptor);

}  // namespace vla_bench::cli
