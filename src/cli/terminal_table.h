// A table on a terminal, at most as wide as the terminal.
#pragma once

#include <cstddef>
#include <string>

#include "report/table.h"

namespace vla_bench::cli {

struct TerminalStyle {
  std::size_t width = 80;
  /// How to see what does not fit: "vla-bench report DIR --format csv".
  std::string whole;
  /// Most lines of a text in a row before it is cut.
  std::size_t most_lines = 3;
};

/// Lines of at most `width` characters (of 20 when the terminal is narrower). Values that are the
/// same in all rows, or empty, are in a paragraph above the table; of the other columns it shows as
/// many as fit, the most important first, with long texts wrapped; a line below names what was left
/// out or cut, and how to see it. A single row that does not fit becomes one line per column.
std::string to_terminal(const Table& table, const TerminalStyle& style);

}  // namespace vla_bench::cli
