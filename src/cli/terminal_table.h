// A table on a terminal: as wide as the terminal and no wider.
#pragma once

#include <cstddef>
#include <string>

#include "report/table.h"

namespace vla_bench::cli {

struct TerminalStyle {
  std::size_t width = 80;
  /// How to see what does not fit: "vla-bench report DIR --format csv".
  std::string whole;
  /// Lines that a text in a row may take before it is cut.
  std::size_t most_lines = 3;
};

/// Lines of at most `width` characters (of 20, where the terminal is narrower). What is the same in
/// all rows, or empty, stands in a paragraph above the table; of the other columns as many as fit,
/// the most telling ones first, long texts wrapped; and below a line that says what was left out or
/// cut, and how to see it. A single row that does not fit becomes a line a column.
std::string to_terminal(const Table& table, const TerminalStyle& style);

}  // namespace vla_bench::cli
