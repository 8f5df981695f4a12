// The config of one cell inside a larger JSON document. Internal to config and report: it includes
// nlohmann/json, which is slow to compile.
#pragma once

#include "config/dump.h"
#include "config/reader.h"

namespace vla_bench {

/// Every key of `config`, as dump_config has them.
inline Json resolved_json(const RunConfig& config) { return to_json(config); }

/// The config that `json` holds; keys that are missing (of an earlier version) have their defaults.
/// Throws BadInput through `place` as parse_config does.
inline RunConfig read_resolved(const Json& json, const Place& place) {
  RunConfig config;
  read_value(json, config, {}, place);
  return config;
}

}  // namespace vla_bench
