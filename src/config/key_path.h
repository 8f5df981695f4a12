// Dotted keys and which of them touch the same value. Internal to config.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vla_bench {

/// A dotted key cut at its dots. "mixer.lambda_0" means that key of every mixer: mixers, any
/// element (kAnyElement), lambda_0.
using KeyPath = std::vector<std::string>;
inline constexpr std::string_view kAnyElement = "*";
KeyPath key_path(std::string_view key);

/// Whether setting one can change what the other has set: they are equal, or one lies below the
/// other.
bool overlap(const KeyPath& a, const KeyPath& b);

/// Whether setting `a` sets all of `b`.
bool covers(const KeyPath& a, const KeyPath& b);

}  // namespace vla_bench
