// Dotted keys of --set and sweep axes: which of them overlap, and setting one. Internal to config.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "config/json.h"

namespace vla_bench {

/// A dotted key, split at its dots. "mixer.lambda_0" is that key of every mixer: mixers, any
/// element (kAnyElement), lambda_0.
using KeyPath = std::vector<std::string>;
inline constexpr std::string_view kAnyElement = "*";
KeyPath key_path(std::string_view key);

/// Whether setting one can change the value of the other: they are equal, or one is below the
/// other.
bool overlap(const KeyPath& a, const KeyPath& b);

/// Whether setting `a` sets all of `b`.
bool covers(const KeyPath& a, const KeyPath& b);

/// Sets `key` ("model.d_h", "mixers.0.lambda_0", "seeds", "sweep.task.n_pairs") to `value`.
/// "mixer.<key>" sets the key on every mixer that has it. A whole struct is replaced, not merged.
/// Throws BadInput through `place` when the key is unknown (naming the nearest) or the value is
/// invalid.
void set_key(RunConfig& config, std::string_view key, const Json& value, const Place& place);

}  // namespace vla_bench
