#include "config/overrides.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "config/dump.h"
#include "config/json.h"
#include "config/set_key.h"
#include "config/sweep.h"

namespace vla_bench {
namespace {

using PathBelow = std::span<const std::string>;

struct Override {
  std::string key;
  KeyPath path;
  Json value;
  Place place;  // the argument
};

Override parse_override(std::string_view text) {
  constexpr std::size_t kMaxShown = 80;
  const std::string shown(text.substr(0, kMaxShown));
  const Place place{fmt::format("--set {}{}", shown, text.size() > kMaxShown ? "..." : ""), ""};
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) place.fail("expected key.path=JSON");
  const std::string key(text.substr(0, equals));
  const std::string_view raw = text.substr(equals + 1);
  Override parsed{key, key_path(key), nullptr, place};
  if (Json::accept(raw.begin(), raw.end())) {
    parsed.value = parse_json(raw, place.origin);
    return parsed;
  }
  parsed.value = std::string(raw);  // --set name=trial needs no quotes
  try {
    parsed.value.dump();
  } catch (const Json::exception&) {
    place.fail("neither JSON nor valid UTF-8");
  }
  return parsed;
}

std::size_t element_index(std::string_view digits) {
  std::size_t index = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), index);
  return index;
}

/// Whether a JSON value that is read as part of a config sets `path` below it.
bool gives(const Json& value, PathBelow path) {
  if (path.empty()) return true;
  const std::string& part = path.front();
  const PathBelow rest = path.subspan(1);
  if (value.is_object()) return value.contains(part) && gives(value[part], rest);
  if (!value.is_array()) return false;
  if (part == kAnyElement) {
    return std::any_of(value.begin(), value.end(),
                       [&](const Json& element) { return gives(element, rest); });
  }
  const std::size_t index = element_index(part);
  return index < value.size() && gives(value[index], rest);
}

/// Sets `path` below `value`, which is read as part of a config, as an override does; `resolved` is
/// the same part of the resulting config. Returns false when `value` sets it to something other
/// than `wanted`.
bool add_below(Json& value, PathBelow path, const Json& resolved, const Json& wanted) {
  if (path.empty()) return value == wanted;
  const std::string& part = path.front();
  const PathBelow rest = path.subspan(1);
  if (value.is_string()) value = Json{{"mixer", value}};  // a mixer given by its name
  if (value.is_array()) {
    const auto add = [&](std::size_t i) { return add_below(value[i], rest, resolved[i], wanted); };
    if (part != kAnyElement) return add(element_index(part));
    bool added = true;
    for (std::size_t i = 0; i < value.size(); ++i) {
      // Other mixers do not have the key.
      if (resolved[i].contains(rest.front())) added = add(i) && added;
    }
    return added;
  }
  if (value.contains(part)) return add_below(value[part], rest, resolved.at(part), wanted);
  value[part] = resolved.at(part);
  return true;
}

/// Returns false for a key of all mixers ("mixer.lambda_0") that none of them has.
bool some_mixer_has(const RunConfig& config, const KeyPath& path) {
  return path.size() < 3 || path[1] != kAnyElement ||
         std::any_of(config.mixers.begin(), config.mixers.end(),
                     [&](const MixerConfig& mixer) { return to_json(mixer).contains(path[2]); });
}

/// One key of an axis.
struct SweptKey {
  SweepAxis& axis;
  std::vector<std::string> keys;  // the axis's keys
  std::size_t position;           // the position of this one among them
  KeyPath path;

  const std::string& key() const { return keys[position]; }
};

bool is_well_formed(const Json& point, std::size_t keys) {
  return keys == 1 || (point.is_array() && point.size() == keys);
}

std::vector<std::string> without_repetitions(const std::vector<std::string>& values) {
  std::vector<std::string> kept;
  for (const std::string& value : values) {
    if (std::find(kept.begin(), kept.end(), value) == kept.end()) kept.push_back(value);
  }
  return kept;
}

/// Merges an override below a swept key into the points of the sweep.
class PointMerger {
 public:
  PointMerger(const RunConfig& config, const Override& override, std::string_view origin)
      : base_(config), override_(override), sweep_(Place{std::string(origin), ""}.at("sweep")) {
    base_.sweep.clear();
  }

  void merge(const SweptKey& swept) const {
    const Place axis = sweep_.at(swept.axis.key);
    std::vector<std::string> merged;
    bool anywhere = false;
    RunConfig untouched = base_;
    for (std::size_t i = 0; i < swept.axis.values.size(); ++i) {
      Json point = parse_json(swept.axis.values[i], sweep_.origin);
      // for_each_point reports the others.
      if (is_well_formed(point, swept.keys.size())) {
        Json& value = swept.keys.size() == 1 ? point : point[swept.position];
        anywhere = merge_value(swept, value, axis.at(i)) || anywhere;
        if (!anywhere && i == 0) set_key(untouched, swept.key(), value, axis.at(i));
      }
      merged.push_back(point.dump());
    }
    // Throws with the reason why it cannot be set.
    if (!anywhere) set_key(untouched, override_.key, override_.value, override_.place);
    swept.axis.values = without_repetitions(merged);
  }

 private:
  /// Returns whether the override applies to this value of the swept key.
  bool merge_value(const SweptKey& swept, Json& value, const Place& place) const {
    RunConfig point = base_;
    set_key(point, swept.key(), value, place);
    if (!some_mixer_has(point, override_.path)) return false;
    set_key(point, override_.key, override_.value, override_.place);
    Json resolved = to_json(point);
    for (const std::string& part : swept.path) {
      // Through a copy: in a direct assignment the part would be destroyed with the whole.
      Json below = resolved.is_array() ? resolved[element_index(part)] : resolved[part];
      resolved = std::move(below);
    }
    const PathBelow below = PathBelow(override_.path).subspan(swept.path.size());
    const std::string given = excerpt(value);
    if (!add_below(value, below, resolved, override_.value)) {
      override_.place.fail(fmt::format(
          "the sweep over \"{}\" gives it another value at {}; change the sweep instead",
          swept.key(), given));
    }
    return true;
  }

  RunConfig base_;
  const Override& override_;
  Place sweep_;
};

/// Whether an override of `path` sets exactly what the axis would.
bool replaces(const KeyPath& path, const KeyPath& swept) {
  return path.size() == swept.size() && covers(path, swept);
}

/// Removes the keys that `path` replaces from the sweep, and then axes without keys and repeated
/// values.
void drop_swept_keys(std::vector<SweepAxis>& axes, const KeyPath& path) {
  for (SweepAxis& axis : axes) {
    const std::vector<std::string> keys = axis_keys(axis.key);
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (!replaces(path, key_path(keys[i]))) kept.push_back(i);
    }
    if (kept.size() == keys.size()) continue;
    std::vector<std::string> kept_keys, values;
    for (const std::size_t i : kept) kept_keys.push_back(keys[i]);
    for (const std::string& text : axis.values) {
      const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
      if (!is_well_formed(value, keys.size())) continue;
      Json rest = Json::array();
      for (const std::size_t i : kept) rest.push_back(value[i]);
      values.push_back((kept.size() == 1 ? rest[0] : rest).dump());
    }
    axis = {fmt::format("{}", fmt::join(kept_keys, ",")), without_repetitions(values)};
  }
  std::erase_if(axes, [](const SweepAxis& axis) { return axis.key.empty(); });
}

std::vector<SweptKey> swept_keys(std::vector<SweepAxis>& axes) {
  std::vector<SweptKey> swept;
  for (SweepAxis& axis : axes) {
    const std::vector<std::string> keys = axis_keys(axis.key);
    for (std::size_t i = 0; i < keys.size(); ++i)
      swept.push_back({axis, keys, i, key_path(keys[i])});
  }
  return swept;
}

/// Returns whether the override was merged into the points of an axis. Throws when it contradicts
/// the axis.
bool merged_into(const SweptKey& swept, const Override& override, const PointMerger& merger) {
  const KeyPath& path = override.path;
  if (!overlap(path, swept.path) || replaces(path, swept.path)) return false;
  if (swept.path.size() > path.size()) {
    if (gives(override.value, PathBelow(swept.path).subspan(path.size()))) {
      override.place.fail(fmt::format(
          "gives \"{}\", which is swept; leave it out, or --set that key itself", swept.key()));
    }
    return false;
  }
  if (swept.path.size() == path.size() || !covers(swept.path, path)) {
    override.place.fail(
        fmt::format("overlaps the sweep over \"{}\", and neither sets all of the "
                    "other; set the keys of each mixer apart",
                    swept.key()));
  }
  merger.merge(swept);
  return true;
}

void apply_override(RunConfig& config, const Override& override, std::string_view origin) {
  const PointMerger merger(config, override, origin);
  std::vector<SweepAxis> axes = config.sweep;
  bool merged = false;
  for (const SweptKey& swept : swept_keys(axes)) {
    merged = merged_into(swept, override, merger) || merged;
  }
  // Otherwise the axis would overwrite the user's value.
  drop_swept_keys(axes, override.path);
  config.sweep = std::move(axes);
  // Without the points' values the key need not be there: "mixers.3.period", say.
  if (!merged) set_key(config, override.key, override.value, override.place);
}

/// The axes that an override adds or replaces.
std::vector<std::string> axes_of(const Override& override) {
  constexpr std::string_view kSweep = "sweep";
  if (override.path.front() != kSweep) return {};
  if (override.path.size() > 1) return {override.key.substr(kSweep.size() + 1)};
  std::vector<std::string> axes;
  if (!override.value.is_object()) return axes;
  for (const auto& [key, values] : override.value.items()) axes.push_back(key);
  return axes;
}

/// Refuses axes that would overwrite a value set by an earlier override.
void refuse_axes_over(std::span<const Override> earlier, const Override& override) {
  for (const std::string& axis : axes_of(override)) {
    for (const std::string& key : axis_keys(axis)) {
      const KeyPath path = key_path(key);
      for (const Override& before : earlier) {
        if (!overlap(path, before.path)) continue;
        override.place.fail(
            fmt::format("sweeps over what --set {} has set; leave one of them out", before.key));
      }
    }
  }
}

}  // namespace

void apply_overrides(RunConfig& config, std::span<const std::string> overrides,
                     std::string_view origin) {
  std::vector<Override> parsed;
  for (const std::string& text : overrides) {
    parsed.push_back(parse_override(text));
    const std::span<const Override> earlier = std::span(parsed).first(parsed.size() - 1);
    refuse_axes_over(earlier, parsed.back());
    apply_override(config, parsed.back(), origin);
  }
}

}  // namespace vla_bench
