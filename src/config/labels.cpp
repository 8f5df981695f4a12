#include "config/labels.h"

#include <fmt/format.h>

#include "config/read.h"

namespace vla_bench {
namespace {

std::string value_text(const std::string& value) { return value; }
std::string value_text(bool value) { return value ? "true" : "false"; }
std::string value_text(Index value) { return std::to_string(value); }
std::string value_text(double value) { return fmt::format("{}", value); }
template <class E>
requires std::is_enum_v<E> std::string value_text(E value) { return std::string(enum_name(value)); }
template <class T>
std::string value_text(const std::optional<T>& value) {
  return value ? value_text(*value) : "null";
}

struct KeyCollector {
  std::vector<MixerKey> keys;

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    keys.push_back({key, value_text(member), info.only});
  }
};

std::vector<MixerKey> all_keys(MixerConfig mixer) {
  KeyCollector collector;
  mixer.visit(collector);
  return std::move(collector.keys);
}

}  // namespace

std::vector<MixerKey> non_default_keys(const MixerConfig& mixer) {
  const std::vector<MixerKey> defaults = all_keys({});
  std::vector<MixerKey> changed;
  for (std::size_t i = 0; MixerKey & key : all_keys(mixer)) {
    if (key.key != "mixer" && key.key != "label" && key.value != defaults[i].value) {
      changed.push_back(std::move(key));
    }
    ++i;
  }
  return changed;
}

std::string mixer_label(const MixerConfig& mixer) {
  if (!mixer.label.empty()) return mixer.label;
  std::string label(enum_name(mixer.mixer));
  for (const MixerKey& key : non_default_keys(mixer)) {
    label += fmt::format(" {}={}", key.key, key.value);
  }
  return label;
}

}  // namespace vla_bench
