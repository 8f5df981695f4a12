// Formatting of numbers, and lengths of UTF-8 text.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>

namespace vla_bench {

/// Removes the sign of a NaN, which means nothing but is printed by formatters ("-nan").
inline double without_nan_sign(double value) {
  return std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value;
}

/// The shortest text that reads back as `value`; "nan", "inf", "-inf".
inline std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  char buffer[32];  // 24 characters at most
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return {buffer, result.ptr};
}

/// Whether the byte is a UTF-8 continuation byte.
inline bool continues_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

/// The number of characters, not bytes, of UTF-8 text.
inline std::size_t count_characters(std::string_view text) {
  return text.size() -
         static_cast<std::size_t>(std::count_if(text.begin(), text.end(), continues_character));
}

}  // namespace vla_bench
