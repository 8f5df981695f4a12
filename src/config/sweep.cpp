#include "config/sweep.h"

#include <fmt/format.h>

#include "config/set_key.h"

namespace vla_bench {
namespace {

// Bounds the memory that one line of config can ask for.
constexpr std::size_t kMaxPoints = 20000;

std::string value_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  return excerpt(value);
}

struct Axis {
  std::string key;
  Place place;
  std::vector<Json> values;
};

Axis read_axis(const SweepAxis& axis, const Place& sweep) {
  Axis read{axis.key, sweep.at(axis.key), {}};
  if (axis.key == "sweep" || axis.key.starts_with("sweep.")) {
    read.place.fail("a sweep cannot be swept");
  }
  if (axis.key == "device") read.place.fail("cannot be swept: a run has one device (--device)");
  if (axis.values.empty()) read.place.fail("expected at least one value");
  for (const std::string& text : axis.values) {
    Json value = parse_json(text, read.place.origin);
    for (const Json& earlier : read.values) {
      if (value == earlier) {
        read.place.at(read.values.size()).fail(excerpt(value) + " stands twice in this list");
      }
    }
    read.values.push_back(std::move(value));
  }
  return read;
}

}  // namespace

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

  std::vector<SweepPoint> points;
  points.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    SweepPoint& point = points.emplace_back(SweepPoint{config, {}});
    point.config.sweep.clear();
    std::size_t stride = count;
    for (const Axis& axis : axes) {
      stride /= axis.values.size();
      const std::size_t choice = i / stride % axis.values.size();
      set_key(point.config, axis.key, axis.values[choice], axis.place.at(choice));
      point.assignments.push_back({axis.key, value_text(axis.values[choice])});
    }
  }
  return points;
}

}  // namespace vla_bench
