// The visitor that fills a config struct from a JSON object. Strict: an unknown key, a wrong type
// or a value out of range is an error that names the place and what was expected. Internal to
// config and claims.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
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
#include "experiments/list.h"

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

/// Returns ", did you mean "n_heads"?", or "" without known names. `elsewhere` are dotted keys: one
/// whose last part is `name` is preferred to a similar name.
std::string did_you_mean(std::string_view name, const std::vector<std::string_view>& known,
                         const std::vector<std::string>& elsewhere = {});

/// Returns the index of the name that `json` is.
std::size_t read_choice(const Json& json, const std::vector<std::string_view>& names,
                        const Place& place);

/// Collects the names of a struct's keys.
struct KeyNames {
  std::vector<std::string_view> keys;

  template <class T>
  void field(const char* key, T&, const FieldInfo&) {
    keys.push_back(key);
  }
};

/// Every key of some mixer's own, in the order of the list.
template <class List = Mixers>
std::vector<std::string_view> keys_of_mixers() {
  KeyNames names;
  List::for_each([&]<class Options>() { Options{}.visit(names); });
  return names.keys;
}

/// "a key of mixer vla", "a key of mixers linear, vla"; empty when it is no mixer's own key.
template <class List = Mixers>
std::string whose_key(std::string_view key) {
  std::vector<std::string_view> mixers;
  List::for_each([&]<class Options>() {
    const std::vector<std::string_view> own = keys_of_mixers<TypeList<Options>>();
    if (std::find(own.begin(), own.end(), key) != own.end()) mixers.push_back(Options::name);
  });
  if (mixers.empty()) return "";
  return fmt::format("a key of mixer{} {}", mixers.size() > 1 ? "s" : "", fmt::join(mixers, ", "));
}

// Declared before Reader, which uses them for structs.
void read_value(const Json& json, bool& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, Index& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, double& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, std::string& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, MixerConfig& out, const FieldInfo& info, const Place& place);
void read_value(const Json& json, std::vector<SweepAxis>& out, const FieldInfo& info,
                const Place& place);
void read_value(const Json& json, MixerOptions& out, const FieldInfo& info, const Place& place);
template <class E>
requires std::is_enum_v<E>
void read_value(const Json& json, E& out, const FieldInfo& info, const Place& place);
template <ConfigStruct T>
void read_value(const Json& json, T& out, const FieldInfo& info, const Place& place);
template <class T>
void read_value(const Json& json, std::optional<T>& out, const FieldInfo& info, const Place& place);
template <class T>
void read_value(const Json& json, std::vector<T>& out, const FieldInfo& info, const Place& place);

/// Collects the keys of nested structs, such as "train.lr".
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
  Reader(const Json& object, const Place& place) : object_(object), place_(place) {
    if (!object.is_object()) place.fail(fmt::format("expected an object, got {}", excerpt(object)));
  }

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    known_.push_back(key);
    const auto found = object_.find(key);
    if (found == object_.end()) {
      if (info.required) place_.fail(fmt::format("expected a key \"{}\"", key));
      return;
    }
    read_value(*found, member, info, place_.at(key));
  }
  void sweep(const char* key, std::vector<SweepAxis>& axes, const FieldInfo& info) {
    field(key, axes, info);
  }

  /// Call after the visit of a mixer: refuses keys that only other mixers have.
  void refuse_foreign_keys(std::string_view mixer) {
    for (const auto& item : object_.items()) {
      const std::string owners = is_known(item.key()) ? "" : whose_key(item.key());
      if (owners.empty()) continue;
      place_.at(item.key()).fail(fmt::format("{}; {} does not have it", owners, mixer));
    }
    // A misspelled key may be meant for another mixer.
    for (const std::string_view key : keys_of_mixers()) known_.push_back(key);
  }

  /// Call after the visit: refuses unknown keys. `also` is a further allowed key ("$schema" at the
  /// top), `elsewhere` as for did_you_mean.
  void refuse_unknown_keys(std::string_view also = "",
                           const std::vector<std::string>& elsewhere = {}) const {
    for (const auto& item : object_.items()) {
      const std::string& key = item.key();
      if (is_known(key) || (!also.empty() && key == also)) continue;
      place_.at(key).fail("unknown key" + did_you_mean(key, known_, elsewhere));
    }
  }

 private:
  bool is_known(std::string_view key) const {
    return std::find(known_.begin(), known_.end(), key) != known_.end();
  }

  const Json& object_;
  const Place& place_;
  std::vector<std::string_view> known_;
};

template <class E>
requires std::is_enum_v<E>
void read_value(const Json& json, E& out, const FieldInfo&, const Place& place) {
  std::vector<std::string_view> names;
  for (const auto& entry : enum_names<E>) names.push_back(entry.second);
  out = enum_names<E>[read_choice(json, names, place)].first;
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
  if (json.empty() && !info.may_be_empty) {
    place.fail("expected at least one element, got an empty list");
  }
  std::vector<T> values(json.size());
  for (std::size_t i = 0; i < json.size(); ++i) {
    read_value(json[i], values[i], info, place.at(i));
  }
  out = std::move(values);
}

}  // namespace vla_bench
