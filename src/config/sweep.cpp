#include "config/sweep.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>
#include <utility>

#include "config/set_key.h"

namespace vla_bench {
namespace {

// These bound the time that a short config can take, since every point is made and checked.
constexpr std::size_t kMaxPoints = 20'000;
constexpr std::size_t kMaxAssignments = 200'000;
constexpr std::size_t kMaxRuns = 1'000'000;
// All pairs of them are compared.
constexpr std::size_t kMaxSweptKeys = 1000;

std::string json_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  return excerpt(value);
}

struct Axis {
  std::vector<std::string> keys;
  Place place;
  std::vector<Json> values;  // with several keys: lists with one value per key

  const Json& value(std::size_t choice, std::size_t key) const {
    return keys.size() == 1 ? values[choice] : values[choice][key];
  }
  Place place_of(std::size_t choice, std::size_t key) const {
    return keys.size() == 1 ? place.at(choice) : place.at(choice).at(key);
  }
};

void check_key(const std::string& key, const Place& place) {
  if (key == "sweep" || key.starts_with("sweep.")) place.fail("a sweep cannot be swept");
  if (key == "device") place.fail("cannot be swept: a run has one device (--device)");
}

Axis read_axis(const SweepAxis& axis, const Place& sweep) {
  Axis read{axis_keys(axis.key), sweep.at(axis.key), {}};
  for (const std::string& key : read.keys) check_key(key, read.place);
  if (axis.values.empty()) read.place.fail("expected at least one value");
  std::set<Json> distinct;
  for (const std::string& text : axis.values) {
    Json value = parse_json(text, read.place.origin);
    if (!distinct.insert(value).second) {
      read.place.at(read.values.size()).fail(excerpt(value) + " stands twice in this list");
    }
    const std::size_t keys = read.keys.size();
    if (keys > 1 && !(value.is_array() && value.size() == keys)) {
      read.place.at(read.values.size())
          .fail(fmt::format("expected a list of {} values, one per key, got {}", keys,
                            excerpt(value)));
    }
    read.values.push_back(std::move(value));
  }
  return read;
}

/// Refuses two axes that set the same value: the later one would win, and titles would be wrong.
void refuse_overlaps(const std::vector<Axis>& axes) {
  struct SweptKey {
    const Axis& axis;
    const std::string& key;
    KeyPath path;
  };
  std::vector<SweptKey> swept;
  for (const Axis& axis : axes) {
    for (const std::string& key : axis.keys) {
      SweptKey now{axis, key, key_path(key)};
      for (const SweptKey& earlier : swept) {
        if (!overlap(now.path, earlier.path)) continue;
        now.axis.place.fail(
            fmt::format("\"{}\" overlaps \"{}\" of the axis \"{}\": one would "
                        "overwrite the other",
                        now.key, earlier.key, fmt::join(earlier.axis.keys, ",")));
      }
      if (swept.size() == kMaxSweptKeys) {
        now.axis.place.fail(fmt::format("more than {} swept keys", kMaxSweptKeys));
      }
      swept.push_back(std::move(now));
    }
  }
}

std::vector<Axis> read_axes(const RunConfig& config, const Place& sweep) {
  std::vector<Axis> axes;
  std::size_t points = 1;
  std::size_t keys = 0;
  for (const SweepAxis& axis : config.sweep) {
    points *= axis.values.size();
    if (points > kMaxPoints) sweep.fail(fmt::format("more than {} points", kMaxPoints));
    axes.push_back(read_axis(axis, sweep));
    keys += axes.back().keys.size();
  }
  if (points * keys > kMaxAssignments) {
    sweep.fail(fmt::format("more than {} values over all points", kMaxAssignments));
  }
  refuse_overlaps(axes);
  return axes;
}

}  // namespace

std::vector<std::string> axis_keys(std::string_view key) {
  std::vector<std::string> keys;
  for (;;) {
    const std::size_t comma = key.find(',');
    keys.emplace_back(key.substr(0, comma));
    if (comma == std::string_view::npos) return keys;
    key.remove_prefix(comma + 1);
  }
}

std::string_view short_key(std::span<const Assignment> assignments, std::size_t i) {
  const auto last_part = [](std::string_view key) { return key.substr(key.rfind('.') + 1); };
  const std::string_view name = last_part(assignments[i].key);
  for (std::size_t j = 0; j < assignments.size(); ++j) {
    if (j != i && last_part(assignments[j].key) == name) return assignments[i].key;
  }
  return name;
}

std::string describe_assignments(std::span<const Assignment> assignments) {
  std::string text;
  for (std::size_t i = 0; i < assignments.size(); ++i) {
    text +=
        fmt::format("{}{}={}", i == 0 ? "" : " ", short_key(assignments, i), assignments[i].value);
  }
  return text;
}

void for_each_point(const RunConfig& config, std::string_view origin,
                    const std::function<void(const SweepPoint&)>& visit) {
  const Place sweep = Place{std::string(origin), ""}.at("sweep");
  const std::vector<Axis> axes = read_axes(config, sweep);
  std::size_t count = 1;
  for (const Axis& axis : axes) count *= axis.values.size();

  RunConfig without_sweep = config;
  without_sweep.sweep.clear();
  std::size_t runs = 0;
  for (std::size_t i = 0; i < count; ++i) {
    SweepPoint point{without_sweep, {}};
    std::size_t stride = count;
    for (const Axis& axis : axes) {
      stride /= axis.values.size();
      const std::size_t choice = i / stride % axis.values.size();
      for (std::size_t key = 0; key < axis.keys.size(); ++key) {
        const Json& value = axis.value(choice, key);
        set_key(point.config, axis.keys[key], value, axis.place_of(choice, key));
        point.assignments.push_back({axis.keys[key], json_text(value)});
      }
    }
    runs += point.config.mixers.size() * point.config.seeds.size();
    if (count > 1 && runs > kMaxRuns) {
      sweep.fail(fmt::format("more than {} runs, repeated ones included", kMaxRuns));
    }
    visit(point);
  }
}

}  // namespace vla_bench
