#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace vla_bench::cli {
namespace {

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

}  // namespace vla_bench::cli
