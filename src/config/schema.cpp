// The JSON Schema (draft 2020-12) that editors use to complete and check configs.
#include <cmath>

#include "config/dump.h"
#include "config/labels.h"
#include "config/read.h"

namespace vla_bench {
namespace {

Json bounded(const char* type, const FieldInfo& info) {
  Json schema = {{"type", type}};
  const bool integer = std::string_view(type) == "integer";
  const auto bound = [&](const char* keyword, double value) {
    if (!std::isfinite(value)) return;
    schema[keyword] = integer ? Json(static_cast<Index>(value)) : Json(value);
  };
  bound("minimum", info.min);
  bound("maximum", info.max);
  return schema;
}

// Each type's schema; `value` holds the default, from which structs take their keys' defaults.
Json type_schema(bool, const FieldInfo&) { return {{"type", "boolean"}}; }
Json type_schema(Index, const FieldInfo& info) { return bounded("integer", info); }
Json type_schema(double, const FieldInfo& info) { return bounded("number", info); }
Json type_schema(const std::string&, const FieldInfo&) { return {{"type", "string"}}; }
Json type_schema(const MixerConfig& value, const FieldInfo& info);
template <class E>
requires std::is_enum_v<E> Json type_schema(E, const FieldInfo&) {
  Json names = Json::array();
  for (const auto& entry : enum_names<E>) names.push_back(std::string(entry.second));
  return {{"enum", names}};
}
template <ConfigStruct T>
Json type_schema(const T& value, const FieldInfo& info);
template <class T>
Json type_schema(const std::optional<T>&, const FieldInfo& info) {
  Json schema = type_schema(T{}, info);
  schema["type"] = Json::array({schema["type"], "null"});
  return schema;
}
template <class T>
Json type_schema(const std::vector<T>&, const FieldInfo& info) {
  return {{"type", "array"}, {"minItems", 1}, {"items", type_schema(T{}, info)}};
}

/// The default as a config would spell it: mixers by name where that says all.
template <class T>
Json default_json(const T& value) {
  return to_json(value);
}
Json default_json(const std::vector<MixerConfig>& mixers) {
  Json list = Json::array();
  for (const MixerConfig& mixer : mixers) {
    list.push_back(mixer.label.empty() && non_default_keys(mixer).empty() ? to_json(mixer.mixer)
                                                                          : to_json(mixer));
  }
  return list;
}

class SchemaWriter {
 public:
  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    Json schema = {{"description", info.help}};
    schema.update(type_schema(member, info));
    if constexpr (!ConfigStruct<T>) schema["default"] = default_json(member);
    properties_[key] = std::move(schema);
  }
  void sweep(const char* key, std::vector<SweepAxis>&, const FieldInfo& info) {
    properties_[key] = {{"description", info.help},
                        {"type", "object"},
                        {"additionalProperties", {{"type", "array"}, {"minItems", 1}}},
                        {"default", Json::object()}};
  }
  Json take() {
    return {{"type", "object"},
            {"additionalProperties", false},
            {"properties", std::move(properties_)}};
  }

 private:
  Json properties_ = Json::object();
};

template <ConfigStruct T>
Json type_schema(const T& value, const FieldInfo&) {
  T copy = value;
  SchemaWriter writer;
  copy.visit(writer);
  return writer.take();
}

Json type_schema(const MixerConfig& value, const FieldInfo& info) {
  MixerConfig copy = value;
  SchemaWriter writer;
  copy.visit(writer);
  return {{"oneOf", Json::array({type_schema(copy.mixer, info), writer.take()})}};
}

}  // namespace

std::string config_schema() {
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", "vla-bench config"},
                 {"description", "Every key has a default: the protocol of arXiv:2605.11196."}};
  schema.update(type_schema(RunConfig{}, {}));
  Json& properties = schema["properties"];
  properties["$schema"] = {{"description", "this file, for editors"}, {"type", "string"}};
  return schema.dump(2) + "\n";
}

}  // namespace vla_bench
