#include <fmt/format.h>

#include <utility>

#include "config/read.h"

namespace vla_bench {
namespace {

std::string value_text(const std::string& value) { return value; }
std::string value_text(bool value) { return value ? "true" : "false"; }
std::string value_text(Index value) { return std::to_string(value); }
std::string value_text(double value) { return fmt::format("{}", value); }
template <class E>
requires std::is_enum_v<E> std::string value_text(E value) { return std::string(enum_name(value)); }
std::string value_text(const MixerOptions& options) { return std::string(mixer_name(options)); }
template <class T>
std::string value_text(const std::optional<T>& value) {
  return value ? value_text(*value) : "null";
}

using Keys = std::vector<std::pair<std::string_view, std::string>>;

struct LabelCollector {
  Keys keys;

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    if (info.changes_result) keys.emplace_back(key, value_text(member));
  }
};

/// Keys and values of everything in which mixers can differ.
Keys keys_of(MixerConfig mixer) {
  LabelCollector collector;
  mixer.visit(collector);
  return std::move(collector.keys);
}

}  // namespace

std::string mixer_label(const MixerConfig& mixer) {
  if (!mixer.label.empty()) return mixer.label;
  std::string label(mixer.name());
  const Keys defaults = keys_of(every_mixer()[mixer.options.index()]);
  for (std::size_t i = 0; const auto& [key, value] : keys_of(mixer)) {
    if (value != defaults[i].second) label += fmt::format(" {}={}", key, value);
    ++i;
  }
  return label;
}

}  // namespace vla_bench
