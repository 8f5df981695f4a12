// The visitor that turns a config struct into JSON. Internal to config.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/json.h"
#include "config/reader.h"

namespace vla_bench {

Json to_json(const MixerConfig& mixer);
Json to_json(const std::vector<SweepAxis>& axes);
inline Json to_json(bool value) { return value; }
inline Json to_json(Index value) { return value; }
inline Json to_json(double value) { return value; }
inline Json to_json(const std::string& value) { return value; }
template <class E>
requires std::is_enum_v<E> Json to_json(E value) { return std::string(enum_name(value)); }
template <ConfigStruct T>
Json to_json(const T& value);
template <class T>
Json to_json(const std::optional<T>& value) {
  return value ? to_json(*value) : Json(nullptr);
}
template <class T>
Json to_json(const std::vector<T>& values) {
  Json list = Json::array();
  for (const T& value : values) list.push_back(to_json(value));
  return list;
}

/// Every key in the order of the visit; of a mixer those that it has.
class Dumper {
 public:
  explicit Dumper(const MixerConfig* mixer = nullptr) : mixer_(mixer) {}

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    if (mixer_ != nullptr && info.only && *info.only != mixer_->mixer) return;
    object_[key] = to_json(std::as_const(member));
  }
  void sweep(const char* key, std::vector<SweepAxis>& axes, const FieldInfo& info) {
    field(key, axes, info);
  }
  Json take() { return std::move(object_); }

 private:
  const MixerConfig* mixer_;
  Json object_ = Json::object();
};

template <ConfigStruct T>
Json to_json(const T& value) {
  T copy = value;  // visit serves readers as well, hence is not const
  Dumper dumper;
  copy.visit(dumper);
  return dumper.take();
}

inline Json to_json(const MixerConfig& mixer) {
  MixerConfig copy = mixer;
  Dumper dumper(&copy);
  copy.visit(dumper);
  return dumper.take();
}

inline Json to_json(const std::vector<SweepAxis>& axes) {
  Json object = Json::object();
  for (const SweepAxis& axis : axes) {
    Json values = Json::array();
    for (const std::string& value : axis.values) values.push_back(Json::parse(value));
    object[axis.key] = std::move(values);
  }
  return object;
}

}  // namespace vla_bench
