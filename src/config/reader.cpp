#include "config/reader.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "config/dump.h"
#include "config/read.h"

namespace vla_bench {
namespace {

// Integers up to 2^53 are exact in a double.
constexpr double kExactLimit = 9007199254740992.0;

std::string format_number(double value) {
  // Bounds such as 2147483648 are more readable without an exponent.
  if (value == std::floor(value) && std::abs(value) < kExactLimit)
    return fmt::format("{:.0f}", value);
  return fmt::format("{}", value);
}

std::string expected_number(std::string_view type, const FieldInfo& info) {
  const bool lower = std::isfinite(info.min);
  const bool upper = std::isfinite(info.max);
  if (lower && upper) {
    return fmt::format("expected {} from {} to {}", type, format_number(info.min),
                       format_number(info.max));
  }
  if (lower) return fmt::format("expected {} of at least {}", type, format_number(info.min));
  if (upper) return fmt::format("expected {} of at most {}", type, format_number(info.max));
  return fmt::format("expected {}", type);
}

// Names of values in other programs, which by spelling may be nearer to another of ours.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kOtherNames = {{
    {"fp32", "float32"},
    {"f32", "float32"},
    {"single", "float32"},
    {"bfloat16", "bf16"},
}};

bool ends_in(std::string_view dotted, std::string_view name) {
  return dotted.ends_with(name) && dotted.size() > name.size() &&
         dotted[dotted.size() - name.size() - 1] == '.';
}

/// The mixer's own keys that are not at their default.
Json set_keys(const MixerOptions& options) {
  const auto own_keys = [](const auto& own) { return to_json(own); };
  Json set = std::visit(own_keys, options);
  const Json defaults = std::visit(own_keys, every_mixer()[options.index()].options);
  for (const auto& [key, value] : defaults.items()) {
    if (set[key] == value) set.erase(key);
  }
  return set;
}

}  // namespace

std::string did_you_mean(std::string_view name, const std::vector<std::string_view>& known,
                         const std::vector<std::string>& elsewhere) {
  for (const auto& [other, ours] : kOtherNames) {
    if (name == other && std::find(known.begin(), known.end(), ours) != known.end()) {
      return fmt::format(", did you mean \"{}\"?", ours);
    }
  }
  std::vector<std::string_view> same;
  for (const std::string& key : elsewhere) {
    if (ends_in(key, name)) same.push_back(key);
  }
  if (!same.empty()) return fmt::format(", did you mean \"{}\"?", fmt::join(same, "\" or \""));
  const std::string nearest = nearest_name(name, known.data(), known.size());
  return nearest.empty() ? "" : fmt::format(", did you mean \"{}\"?", nearest);
}

std::size_t read_choice(const Json& json, const std::vector<std::string_view>& names,
                        const Place& place) {
  const std::string text = json.is_string() ? json.get<std::string>() : "";
  const auto found = std::find(names.begin(), names.end(), text);
  if (json.is_string() && found != names.end()) {
    return static_cast<std::size_t>(found - names.begin());
  }
  place.fail(fmt::format("expected one of \"{}\", got {}{}", fmt::join(names, "\", \""),
                         excerpt(json), json.is_string() ? did_you_mean(text, names) : ""));
}

void read_value(const Json& json, bool& out, const FieldInfo&, const Place& place) {
  if (!json.is_boolean()) place.fail(fmt::format("expected true or false, got {}", excerpt(json)));
  out = json.get<bool>();
}

void read_value(const Json& json, Index& out, const FieldInfo& info, const Place& place) {
  bool valid = true;
  Index value = 0;
  if (json.is_number_unsigned()) {
    const auto number = json.get<std::uint64_t>();
    valid = number <= static_cast<std::uint64_t>(std::numeric_limits<Index>::max());
    value = valid ? static_cast<Index>(number) : 0;
  } else if (json.is_number_integer()) {
    value = json.get<Index>();
  } else if (json.is_number_float()) {
    const double number = json.get<double>();
    valid = std::abs(number) <= kExactLimit && number == std::floor(number);
    value = valid ? static_cast<Index>(number) : 0;
  } else {
    valid = false;
  }
  const auto as_double = static_cast<double>(value);
  if (!valid || as_double < info.min || as_double > info.max) {
    place.fail(fmt::format("{}, got {}", expected_number("an integer", info), excerpt(json)));
  }
  out = value;
}

void read_value(const Json& json, double& out, const FieldInfo& info, const Place& place) {
  const double value = json.is_number() ? json.get<double>() : 0.0;
  if (!json.is_number() || !std::isfinite(value) || value < info.min || value > info.max) {
    place.fail(fmt::format("{}, got {}", expected_number("a finite number", info), excerpt(json)));
  }
  out = value;
}

void read_value(const Json& json, std::string& out, const FieldInfo&, const Place& place) {
  if (!json.is_string()) place.fail(fmt::format("expected a string, got {}", excerpt(json)));
  out = json.get<std::string>();
}

void read_value(const Json& json, MixerConfig& out, const FieldInfo& info, const Place& place) {
  if (json.is_string()) {
    read_value(json, out.options, info, place);
    return;
  }
  if (!json.is_object()) {
    place.fail(fmt::format("expected a mixer's name or an object, got {}", excerpt(json)));
  }
  Reader reader(json, place);
  out.visit(reader);
  reader.refuse_foreign_keys(out.name());
  reader.refuse_unknown_keys();
}

void read_value(const Json& json, MixerOptions& out, const FieldInfo&, const Place& place) {
  std::vector<std::string_view> names;
  for (const MixerConfig& mixer : every_mixer()) names.push_back(mixer.name());
  const std::size_t chosen = read_choice(json, names, place);
  if (chosen == out.index()) return;
  const Json set = set_keys(out);
  out = every_mixer()[chosen].options;
  // Keys already set stay set; one that this mixer lacks is refused rather than dropped.
  Reader reader(set, place);
  std::visit([&](auto& own) { own.visit(reader); }, out);
  reader.refuse_foreign_keys(names[chosen]);
}

MixerOptions read_mixer(const std::map<std::string, std::string>& texts, std::string_view origin) {
  Json object = Json::object();
  for (const auto& [key, text] : texts) {
    object[key] = Json::accept(text) ? parse_json(text, origin) : Json(text);
  }
  MixerOptions options;
  const Place place{std::string(origin), ""};
  if (!object.contains("mixer")) place.fail("no \"mixer\"");
  Reader reader(object, place);
  reader.field("mixer", options, {});
  std::visit([&](auto& own) { own.visit(reader); }, options);
  return options;
}

void read_value(const Json& json, std::vector<SweepAxis>& out, const FieldInfo&,
                const Place& place) {
  if (!json.is_object()) {
    place.fail(fmt::format("expected an object of dotted key to list, got {}", excerpt(json)));
  }
  std::vector<SweepAxis> axes;
  for (const auto& [key, values] : json.items()) {
    if (!values.is_array() || values.empty()) {
      place.at(key).fail(
          fmt::format("expected a list of at least one value, got {}", excerpt(values)));
    }
    SweepAxis& axis = axes.emplace_back(SweepAxis{key, {}});
    for (const Json& value : values) axis.values.push_back(value.dump());
  }
  out = std::move(axes);
}

}  // namespace vla_bench
