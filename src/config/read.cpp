#include "config/read.h"

#include <fmt/format.h>

#include "config/dump.h"
#include "config/json.h"
#include "config/overrides.h"
#include "config/reader.h"
#include "config/sweep.h"
#include "core/error.h"
#include "core/files.h"

namespace vla_bench {
RunConfig read_config(const std::filesystem::path& path, std::span<const std::string> overrides) {
  return parse_config(read_file(path, kMaxJsonBytes), path.string(), overrides);
}

RunConfig parse_config(std::string_view json, std::string_view origin,
                       std::span<const std::string> overrides) {
  const Json document = parse_json(json, origin);
  const Place place{std::string(origin), ""};
  RunConfig config;
  Reader reader(document, place);
  config.visit(reader);
  reader.refuse_unknown_keys("$schema", keys_below(config));
  apply_overrides(config, overrides, origin);
  if (config.name.empty()) config.name = enum_name(config.experiment);

  for_each_point(config, origin, [&](const SweepPoint& point) {
    try {
      validate(point.config);
    } catch (const BadInput& error) {
      if (point.assignments.empty()) place.fail(error.what());
      place.fail(fmt::format("at {}: {}", describe_assignments(point.assignments), error.what()));
    }
  });
  return config;
}

std::string dump_config(const RunConfig& config) { return to_json(config).dump(2) + "\n"; }

}  // namespace vla_bench
