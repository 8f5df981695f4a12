#include "config/read.h"

#include <fmt/format.h>

#include <algorithm>

#include "config/dump.h"
#include "config/json.h"
#include "config/reader.h"
#include "config/set_key.h"
#include "config/sweep.h"
#include "core/error.h"
#include "core/files.h"

namespace vla_bench {
namespace {

void apply_override(RunConfig& config, std::string_view text) {
  constexpr std::size_t kMaxShown = 80;
  const std::string shown(text.substr(0, kMaxShown));
  const Place place{fmt::format("--set {}{}", shown, text.size() > kMaxShown ? "..." : ""), ""};
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) place.fail("expected key.path=JSON");
  const std::string_view key = text.substr(0, equals);
  const std::string_view raw = text.substr(equals + 1);

  Json value;
  if (Json::accept(raw.begin(), raw.end())) {
    value = parse_json(raw, place.origin);
  } else {
    value = std::string(raw);  // --set name=trial needs no quotes
    try {
      value.dump();
    } catch (const Json::exception&) {
      place.fail("neither JSON nor valid UTF-8");
    }
  }
  set_key(config, key, value, place);
  // Left in place, the axis would overwrite what the user has just asked for.
  drop_swept_key(config.sweep, key);
}

}  // namespace

RunConfig read_config(const std::filesystem::path& path, std::span<const std::string> overrides) {
  return parse_config(read_file(path), path.string(), overrides);
}

RunConfig parse_config(std::string_view json, std::string_view origin,
                       std::span<const std::string> overrides) {
  const Json document = parse_json(json, origin);
  const Place place{std::string(origin), ""};
  RunConfig config;
  Reader reader(document, place);
  config.visit(reader);
  reader.refuse_unknown_keys("$schema");
  for (const std::string& text : overrides) apply_override(config, text);
  if (config.name.empty()) config.name = enum_name(config.experiment);

  for (const SweepPoint& point : expand_sweep(config, origin)) {
    try {
      validate(point.config);
    } catch (const BadInput& error) {
      if (point.assignments.empty()) place.fail(error.what());
      place.fail(fmt::format("at {}: {}", describe_assignments(point.assignments), error.what()));
    }
  }
  return config;
}

std::string dump_config(const RunConfig& config) { return to_json(config).dump(2) + "\n"; }

}  // namespace vla_bench
