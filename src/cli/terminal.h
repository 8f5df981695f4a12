// The terminal that output goes to, where it goes to one.
#pragma once

#include <cstddef>
#include <optional>

namespace vla_bench::cli {

/// Columns of the terminal behind a file descriptor: the variable COLUMNS where it holds a whole
/// number, else what the terminal says, else 80. Nothing where the descriptor is no terminal.
std::optional<std::size_t> terminal_width(int descriptor);

}  // namespace vla_bench::cli
