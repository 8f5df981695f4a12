// The width of the terminal, and text that fits a number of columns. Widths are in characters of
// UTF-8, each one column wide.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vla_bench::cli {

/// Columns of the terminal of a file descriptor: the variable COLUMNS if it is an integer, else the
/// terminal's own width, else 80. Empty when the descriptor is not a terminal.
std::optional<std::size_t> terminal_width(int descriptor);

/// The text on one line: control characters (line ends, escape sequences) become spaces.
std::string one_line(std::string_view text);

/// The text if it fits `width`, else its beginning and "…".
std::string cut_text(std::string_view text, std::size_t width);

/// The text in lines of at most `width` characters (at least one), broken at spaces, else after one
/// of / , _ - =, else anywhere. With more than `most_lines` lines the last one ends in "…".
/// Returns at least one line.
std::vector<std::string> wrap_text(std::string_view text, std::size_t width,
                                   std::size_t most_lines);

/// A paragraph of lines of at most `width` characters, each with a line end; all except the first
/// are indented by two.
std::string paragraph(std::string_view text, std::size_t width);

}  // namespace vla_bench::cli
