// Setting one dotted key of a config: what --set and sweep axes do. Internal to config.
#pragma once

#include <string_view>

#include "config/config.h"
#include "config/json.h"

namespace vla_bench {

/// Sets `key` ("model.d_h", "mixers.0.lambda_0", "seeds", "sweep.task.n_pairs") to `value`.
/// "mixer.<key>" sets the key on every mixer that has it. A whole struct is replaced, not merged.
/// Throws BadInput through `place` when the key is unknown (naming the nearest) or the value does
/// not fit it.
void set_key(RunConfig& config, std::string_view key, const Json& value, const Place& place);

}  // namespace vla_bench
