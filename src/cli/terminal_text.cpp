#include "cli/terminal_text.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "core/text.h"

namespace vla_bench::cli {
namespace {

constexpr std::string_view kEllipsis = "\u2026";
constexpr std::string_view kBreakBehind = "/,_-=";

/// Bytes of the first `count` characters.
std::size_t bytes_of(std::string_view text, std::size_t count) {
  std::size_t characters = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (continues_character(text[i])) continue;
    if (characters == count) return i;
    ++characters;
  }
  return text.size();
}

/// Bytes of the next line of `text`, which is wider than `width`.
std::size_t line_bytes(std::string_view text, std::size_t width) {
  const std::size_t limit = bytes_of(text, width);
  const std::size_t space = text.substr(0, limit + 1).rfind(' ');
  if (space != std::string_view::npos && space > 0) return space;
  const std::size_t mark = text.substr(0, limit).find_last_of(kBreakBehind);
  return mark != std::string_view::npos && mark > 0 ? mark + 1 : limit;
}

std::string_view without_leading_spaces(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(' '), text.size()));
}

constexpr std::size_t kUsualWidth = 80;  // of a terminal with unknown width

/// 0 when the variable has no usable value.
std::size_t stated_width() {
  const char* const variable = std::getenv("COLUMNS");
  if (variable == nullptr) return 0;
  const std::string_view text = variable;
  std::size_t width = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), width);
  const bool whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
  return whole ? width : 0;
}

}  // namespace

std::optional<std::size_t> terminal_width(int descriptor) {
  if (isatty(descriptor) != 1) return std::nullopt;
  if (const std::size_t stated = stated_width(); stated > 0) return stated;
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsualWidth;
  return size.ws_col;
}

std::string one_line(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) c = ' ';
  }
  return line;
}

std::string cut_text(std::string_view text, std::size_t width) {
  if (count_characters(text) <= width) return std::string(text);
  if (width == 0) return "";
  return std::string(text.substr(0, bytes_of(text, width - 1))) + std::string(kEllipsis);
}

std::vector<std::string> wrap_text(std::string_view text, std::size_t width,
                                   std::size_t most_lines) {
  width = std::max<std::size_t>(width, 1);
  std::vector<std::string> lines;
  while (count_characters(text) > width && lines.size() + 1 < most_lines) {
    const std::size_t bytes = line_bytes(text, width);
    lines.emplace_back(text.substr(0, bytes));
    text = without_leading_spaces(text.substr(bytes));
  }
  lines.push_back(cut_text(text, width));
  return lines;
}

std::string paragraph(std::string_view text, std::size_t width) {
  constexpr std::size_t kIndent = 2;
  constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
  const std::string first = wrap_text(text, width, kNoLimit).front();
  std::string out = first + "\n";
  const std::string_view rest = without_leading_spaces(text.substr(first.size()));
  if (rest.empty()) return out;
  const std::size_t indent = width > 2 * kIndent ? kIndent : 0;
  for (const std::string& line : wrap_text(rest, width - indent, kNoLimit)) {
    out += std::string(indent, ' ') + line + "\n";
  }
  return out;
}

}  // namespace vla_bench::cli
