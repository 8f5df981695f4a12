// The visitor that fills a config struct from a JSON object. Strict: an unknown key, a wrong type
// and a value out of range are errors that name the place and what was expected. Internal to
// config and claims.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "config/config.h"
#include "config/json.h"
#include "core/files.h"

namespace vla_bench {

struct AnyVisitor {
  template <class T>
  void field(const char*, T&, const FieldInfo&) {}
  void sweep(const char*, std::vector<SweepAxis>&, const FieldInfo&) {}
};
template <class T>
concept ConfigStruct = requires(T value, AnyVisitor visitor) {
  value.visit(visitor);
};

/// ", did you mean "n_heads"?"; nothing when nothing is known. `elsewhere` are dotted keys: one
/// whose last part is `name` goes before a name that only resembles it.
std::string did_you_mean(std::string_view name, const std::vector<std::string_view>& known,
                         const std::vector<std::string>& elsewhere = {});

inline std::string foreign_key_message(MixerKind owner, MixerKind mixer) {
  return fmt::format("a key of mixer {}; {} does not have it", enum_name(owner), enum_name(mixer));
}

// Declared ahead of Reader, which reads structs by way of them.
void read_value(const Json& json, bool& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, Index& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, double& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, std::string& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, MixerConfig& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, std::vector<SweepAxis>& out, const FieldInfo& info,
                const Place& place);
template <class E>
requires std::is_enum_v<E>
void read_value(const Json& json, E& out, const FieldInfo& info, const Place& place);
template <ConfigStruct T>
void read_value(const Json& json, T& out, const FieldInfo& info, const Place& place);
template <class T>
void read_value(const Json& json, std::optional<T>& out, const FieldInfo& info, const Place& place);
template <class T>
void read_value(const Json& json, std::vector<T>& out, const FieldInfo& info, const Place& place);

/// Collects "train.lr" and the like: the keys of the structs in a struct.
class KeysBelow {
 public:
  template <class T>
  void field(const char* key, T& member, const FieldInfo&) {
    if constexpr (ConfigStruct<T>) {
      KeysBelow below(prefix_ + key + ".");
      member.visit(below);
      keys_.insert(keys_.end(), below.keys_.begin(), below.keys_.end());
    } else if (!prefix_.empty()) {
      keys_.push_back(prefix_ + key);
    }
  }
  void sweep(const char*, std::vector<SweepAxis>&, const FieldInfo&) {}
  const std::vector<std::string>& keys() const { return keys_; }

  explicit KeysBelow(std::string prefix = "") : prefix_(std::move(prefix)) {}

 private:
  std::string prefix_;
  std::vector<std::string> keys_;
};

template <ConfigStruct T>
std::vector<std::string> keys_below(T& object) {
  KeysBelow collector;
  object.visit(collector);
  return collector.keys();
}

class Reader {
 public:
  /// `mixer`: the struct being read when it is a MixerConfig, whose keys depend on its kind.
  Reader(const Json& object, const Place& place, const MixerConfig* mixer = nullptr)
      : object_(object), place_(place), mixer_(mixer) {
    if (!object.is_object()) place.fail(fmt::format("expected an object, got {}", excerpt(object)));
  }

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    known_.push_back(key);
    const auto found = object_.find(key);
    if (found == object_.end()) return;
    if (mixer_ != nullptr && info.only && *info.only != mixer_->mixer) {
      place_.at(key).fail(foreign_key_message(*info.only, mixer_->mixer));
    }
    read_value(*found, member, info, place_.at(key));
  }
  void sweep(const char* key, std::vector<SweepAxis>& axes, const FieldInfo& info) {
    field(key, axes, info);
  }

  /// Call after the visit. `also` is a further allowed key ("$schema" at the top), `elsewhere` as
  /// for did_you_mean.
  void refuse_unknown_keys(std::string_view also = "",
                           const std::vector<std::string>& elsewhere = {}) const {
    for (const auto& item : object_.items()) {
      const std::string& key = item.key();
      bool found = !also.empty() && key == also;
      for (const std::string_view known : known_) found = found || key == known;
      if (!found) place_.at(key).fail("unknown key" + did_you_mean(key, known_, elsewhere));
    }
  }

 private:
  const Json& object_;
  const Place& place_;
  const MixerConfig* mixer_;
  std::vector<std::string_view> known_;
};

template <class E>
requires std::is_enum_v<E>
void read_value(const Json& json, E& out, const FieldInfo&, const Place& place) {
  std::vector<std::string_view> names;
  for (const auto& [value, name] : enum_names<E>) {
    if (json.is_string() && json.get_ref<const std::string&>() == name) {
      out = value;
      return;
    }
    names.push_back(name);
  }
  place.fail(fmt::format("expected one of \"{}\", got {}{}", fmt::join(names, "\", \""),
                         excerpt(json),
                         json.is_string() ? did_you_mean(json.get<std::string>(), names) : ""));
}

template <ConfigStruct T>
void read_value(const Json& json, T& out, const FieldInfo&, const Place& place) {
  Reader reader(json, place);
  out.visit(reader);
  reader.refuse_unknown_keys();
}

template <class T>
void read_value(const Json& json, std::optional<T>& out, const FieldInfo& info,
                const Place& place) {
  if (json.is_null()) {
    out.reset();
  } else {
    T value{};
    read_value(json, value, info, place);
    out = value;
  }
}

template <class T>
void read_value(const Json& json, std::vector<T>& out, const FieldInfo& info, const Place& place) {
  if (!json.is_array()) place.fail(fmt::format("expected a list, got {}", excerpt(json)));
  if (json.empty()) place.fail("expected at least one element, got an empty list");
  std::vector<T> values(json.size());
  for (std::size_t i = 0; i < json.size(); ++i) {
    read_value(json[i], values[i], info, place.at(i));
  }
  out = std::move(values);
}

}  // namespace vla_bench
