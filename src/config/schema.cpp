// The JSON Schema (draft 2020-12) that editors use to complete and check configs.
#include <cmath>

#include "config/dump.h"
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

// The schema of each type; `value` is the default, from which structs take their keys' defaults.
Json type_schema(bool, const FieldInfo&) { return {{"type", "boolean"}}; }
Json type_schema(Index, const FieldInfo& info) { return bounded("integer", info); }
Json type_schema(double, const FieldInfo& info) { return bounded("number", info); }
Json type_schema(const std::string&, const FieldInfo&) { return {{"type", "string"}}; }
Json type_schema(const MixerOptions&, const FieldInfo&) {
  Json names = Json::array();
  for (const MixerConfig& mixer : every_mixer()) names.push_back(to_json(mixer.options));
  return {{"enum", names}};
}
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
  return {{"type", "array"},
          {"minItems", info.may_be_empty ? 0 : 1},
          {"items", type_schema(T{}, info)}};
}

/// The default as written in a config: mixers by name where that is enough.
template <class T>
Json default_json(const T& value) {
  return to_json(value);
}
Json default_json(const std::vector<MixerConfig>& mixers) {
  Json list = Json::array();
  for (const MixerConfig& mixer : mixers) {
    list.push_back(mixer_label(mixer) == mixer.name() ? to_json(mixer.options) : to_json(mixer));
  }
  return list;
}

class SchemaWriter {
 public:
  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    Json schema = {{"description", info.help}};
    schema.update(type_schema(member, info));
    if (info.required) {
      required_.push_back(key);
    } else if constexpr (!ConfigStruct<T>) {
      schema["default"] = default_json(member);
    }
    add(key, std::move(schema));
  }
  void sweep(const char* key, std::vector<SweepAxis>&, const FieldInfo& info) {
    properties_[key] = {{"description", info.help},
                        {"type", "object"},
                        {"additionalProperties", {{"type", "array"}, {"minItems", 1}}},
                        {"default", Json::object()}};
  }
  Json take() {
    Json schema = {{"type", "object"},
                   {"additionalProperties", false},
                   {"properties", std::move(properties_)}};
    if (!required_.empty()) schema["required"] = std::move(required_);
    return schema;
  }

 private:
  /// Adds a key; a key of several mixers may have a different meaning in each.
  void add(const char* key, Json schema) {
    if (!properties_.contains(key)) {
      properties_[key] = std::move(schema);
    } else if (Json& earlier = properties_[key]; earlier.contains("anyOf")) {
      earlier["anyOf"].push_back(std::move(schema));
    } else if (earlier != schema) {
      earlier = {{"anyOf", Json::array({earlier, std::move(schema)})}};
    }
  }

  Json properties_ = Json::object();
  Json required_ = Json::array();
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
  copy.visit_shared(writer);
  Mixers::for_each([&]<class Options>() { Options{}.visit(writer); });
  return {{"oneOf", Json::array({type_schema(copy.options, info), writer.take()})}};
}

}  // namespace

std::string config_schema() {
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", "vla-bench config"},
                 {"description", "Every key has a default: the protocol of arXiv:2605.11196."}};
  // For scripts/plotting, which has no list of mixers.
  Mixers::for_each([&]<class Options>() {
    schema["x-mixers"][std::string(Options::name)] = {{"title", std::string(Options::title)},
                                                      {"colour", std::string(Options::colour)}};
  });
  schema.update(type_schema(RunConfig{}, {}));
  Json& properties = schema["properties"];
  properties["$schema"] = {{"description", "this file, for editors"}, {"type", "string"}};
  return schema.dump(2) + "\n";
}

}  // namespace vla_bench
