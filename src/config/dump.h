// The visitor that turns a config struct into JSON, and the config of one cell inside a larger
// document. Internal to config, report and runs: it includes nlohmann/json, which is slow to
// compile.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/json.h"
#include "config/reader.h"

namespace vla_bench {

Json to_json(const std::vector<SweepAxis>& axes);
inline Json to_json(bool value) { return value; }
inline Json to_json(Index value) { return value; }
inline Json to_json(double value) { return value; }
inline Json to_json(const std::string& value) { return value; }
template <class E>
requires std::is_enum_v<E> Json to_json(E value) { return std::string(enum_name(value)); }
/// The mixer's name; its keys are dumped next to it.
inline Json to_json(const MixerOptions& options) { return std::string(mixer_name(options)); }
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

/// Every key in the order of the visit.
class Dumper {
 public:
  template <class T>
  void field(const char* key, T& member, const FieldInfo&) {
    object_[key] = to_json(std::as_const(member));
  }
  void sweep(const char* key, std::vector<SweepAxis>& axes, const FieldInfo& info) {
    field(key, axes, info);
  }
  Json take() { return std::move(object_); }

 private:
  Json object_ = Json::object();
};

template <ConfigStruct T>
Json to_json(const T& value) {
  T copy = value;  // visit is not const, since readers use it too
  Dumper dumper;
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

/// Every key of `config`, as dump_config has them.
inline Json resolved_json(const RunConfig& config) { return to_json(config); }

/// Reads the config in `json`; missing keys (of an earlier version) have their defaults. Throws
/// BadInput through `place` as parse_config does.
inline RunConfig read_resolved(const Json& json, const Place& place) {
  RunConfig config;
  read_value(json, config, {}, place);
  return config;
}

}  // namespace vla_bench
