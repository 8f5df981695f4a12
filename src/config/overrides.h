// The effect of --set on a config and its sweep. Internal to config.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "config/config.h"

namespace vla_bench {

/// Applies `overrides` ("key.path=JSON"; a value that is not JSON is taken as a string) one after
/// the other. Never drops a requested value silently. Where the sweep touches the key:
///   the swept key itself  its axis goes, or the key is taken out of an axis of several;
///   a key below it        goes into every point; refused where a point gives another value;
///   a key above it        the axis stays; refused where the new value gives the swept key.
/// Also refused: a key of one mixer that is swept for all of them, and an axis over a key that an
/// earlier override has set. Throws BadInput naming the override; `origin` names the config.
void apply_overrides(RunConfig& config, std::span<const std::string> overrides,
                     std::string_view origin);

}  // namespace vla_bench
