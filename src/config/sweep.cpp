#include "config/sweep.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "config/key_path.h"
#include "config/set_key.h"

namespace vla_bench {
namespace {

// Bounds the memory that one line of config can ask for.
constexpr std::size_t kMaxPoints = 20000;
// Every two of them are compared.
constexpr std::size_t kMaxSweptKeys = 1000;

std::string value_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  return excerpt(value);
}

struct Axis {
  std::vector<std::string> keys;
  Place place;
  std::vector<Json> values;  // of several keys: lists with a value for each

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
  for (const std::string& text : axis.values) {
    Json value = parse_json(text, read.place.origin);
    for (const Json& earlier : read.values) {
      if (value == earlier) {
        read.place.at(read.values.size()).fail(excerpt(value) + " stands twice in this list");
      }
    }
    const std::size_t keys = read.keys.size();
    if (keys > 1 && !(value.is_array() && value.size() == keys)) {
      read.place.at(read.values.size())
          .fail(
              fmt::format("expected a list of {} values, one a key, got {}", keys, excerpt(value)));
    }
    read.values.push_back(std::move(value));
  }
  return read;
}

/// Of two axes that set the same value the later would win, and cells would not be what their
/// titles say.
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

std::vector<SweepPoint> expand_sweep(const RunConfig& config, std::string_view origin) {
  const Place sweep = Place{std::string(origin), ""}.at("sweep");
  std::vector<Axis> axes;
  std::size_t count = 1;
  for (const SweepAxis& axis : config.sweep) {
    axes.push_back(read_axis(axis, sweep));
    count *= axes.back().values.size();
    if (count > kMaxPoints) sweep.fail(fmt::format("more than {} points", kMaxPoints));
  }
  refuse_overlaps(axes);

  std::vector<SweepPoint> points;
  points.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    SweepPoint& point = points.emplace_back(SweepPoint{config, {}});
    point.config.sweep.clear();
    std::size_t stride = count;
    for (const Axis& axis : axes) {
      stride /= axis.values.size();
      const std::size_t choice = i / stride % axis.values.size();
      for (std::size_t key = 0; key < axis.keys.size(); ++key) {
        const Json& value = axis.value(choice, key);
        set_key(point.config, axis.keys[key], value, axis.place_of(choice, key));
        point.assignments.push_back({axis.keys[key], value_text(value)});
      }
    }
  }
  return points;
}

}  // namespace vla_bench
