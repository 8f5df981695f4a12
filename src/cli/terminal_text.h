// Text in a given number of columns. Widths are in characters of UTF-8, each of them one column.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace vla_bench::cli {

/// The text on one line: control characters (line ends, escape sequences) become spaces.
std::string one_line(std::string_view text);

/// The text where it fits `width`, else its beginning and "…".
std::string cut_text(std::string_view text, std::size_t width);

/// The text in lines of at most `width` characters (at least one), broken at spaces, else behind
/// one of / , _ - =, else anywhere. Of more than `most_lines` the last one ends in "…".
/// Always at least one line.
std::vector<std::string> wrap_text(std::string_view text, std::size_t width,
                                   std::size_t most_lines);

/// A paragraph of lines of at most `width` characters that each end in a line end; all but the
/// first are indented by two.
std::string paragraph(std::string_view text, std::size_t width);

}  // namespace vla_bench::cli
