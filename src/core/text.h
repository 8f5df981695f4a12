// Numbers as text.
#pragma once

#include <charconv>
#include <cmath>
#include <limits>
#include <string>

namespace vla_bench {

/// The sign of a NaN means nothing, but formatters print it ("-nan"): this one has none.
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

}  // namespace vla_bench
