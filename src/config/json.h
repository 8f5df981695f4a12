// JSON text to a document, strictly, and where in it a mistake stands. Internal to config and
// claims: only their .cpp files include this (nlohmann/json is slow to compile).
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace vla_bench {

/// Objects keep the order of the text: the order of sweep axes has a meaning.
using Json = nlohmann::ordered_json;

/// Far beyond any config, small enough that hostile text costs neither memory nor time.
inline constexpr std::size_t kMaxJsonBytes = std::size_t{1} << 20;

/// Where a value came from, for error messages.
struct Place {
  std::string origin;   // file name, or the --set argument
  std::string pointer;  // JSON pointer (RFC 6901) inside it; empty: the whole

  Place at(std::string_view key) const;
  Place at(std::size_t index) const;
  [[noreturn]] void fail(std::string_view message) const;  // BadInput "origin: pointer: message"
};

/// Parses one JSON document; // and /* */ comments are allowed. Throws BadInput on syntax errors
/// (with line and column), a key that stands twice in one object, numbers too large for a double,
/// nesting deeper than 32, more than 1,000 keys in an object and more than 1 MiB of text.
Json parse_json(std::string_view text, std::string_view origin);

/// Parses one JSON document of any length and without comments: what the program wrote itself, or
/// somebody in its place. Throws BadInput as parse_json does; of a key that stands twice in one
/// object the last counts.
Json parse_long_json(std::string_view text, std::string_view origin);

/// The value as JSON text, cut to what an error message can hold.
std::string excerpt(const Json& value);

}  // namespace vla_bench
