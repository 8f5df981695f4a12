// Strict JSON parsing, and the place of a value for error messages. Internal to config and claims:
// only their .cpp files include this (nlohmann/json is slow to compile).
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace vla_bench {

/// Objects keep the order of the text, since the order of sweep axes matters.
using Json = nlohmann::ordered_json;

/// More than any config needs, small enough that hostile text costs neither memory nor time.
inline constexpr std::size_t kMaxJsonBytes = std::size_t{1} << 20;

/// The place of a JSON value, for error messages.
struct Place {
  std::string origin;   // file name, or the --set argument
  std::string pointer;  // JSON pointer (RFC 6901) inside it; empty: the whole

  Place at(std::string_view key) const;
  Place at(std::size_t index) const;
  [[noreturn]] void fail(std::string_view message) const;  // BadInput "origin: pointer: message"
};

/// Parses one JSON document; // and /* */ comments are allowed. Throws BadInput on syntax errors
/// (with line and column), a key that occurs twice in one object, numbers too large for a double,
/// nesting deeper than 32, more than 1,000 keys in an object and more than 1 MiB of text.
Json parse_json(std::string_view text, std::string_view origin);

/// Parses one JSON document of any length and without comments, such as the program writes. Throws
/// BadInput as parse_json does; when a key occurs twice in one object the last value counts.
Json parse_long_json(std::string_view text, std::string_view origin);

/// The value as JSON text, truncated for an error message.
std::string excerpt(const Json& value);

}  // namespace vla_bench
