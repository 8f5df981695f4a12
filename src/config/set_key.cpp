#include "config/set_key.h"

#include <algorithm>
#include <charconv>

#include "config/reader.h"

namespace vla_bench {
namespace {

/// "a.b.c" -> "a" and "b.c".
std::pair<std::string_view, std::string_view> split_first(std::string_view key) {
  const std::size_t dot = key.find('.');
  if (dot == std::string_view::npos) return {key, {}};
  return {key.substr(0, dot), key.substr(dot + 1)};
}

/// Visits the structs on the path to one key.
class KeySetter {
 public:
  KeySetter(std::string_view path, const Json& value, const Place& place)
      : first_(split_first(path).first),
        rest_(split_first(path).second),
        value_(value),
        place_(place) {}

  template <ConfigStruct T>
  void set(T& target) {
    target.visit(*this);
    if (!found_) fail_unknown(keys_below(target));
  }

  /// Returns false when only other mixers have the key.
  bool set_on_mixer(MixerConfig& mixer) {
    mixer.visit(*this);
    if (found_) return true;
    if (!whose_key(first_).empty()) return false;
    for (const std::string_view key : keys_of_mixers()) known_.push_back(key);
    fail_unknown({});
  }

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    known_.push_back(key);
    if (found_ || first_ != key) return;
    found_ = true;
    assign(member, info);
  }
  void sweep(const char* key, std::vector<SweepAxis>& axes, const FieldInfo& info) {
    known_.push_back(key);
    if (first_ != key) return;
    found_ = true;
    if (rest_.empty()) {
      read_value(value_, axes, info, place_);
      return;
    }
    // The rest of the key names the axis: "sweep.task.n_pairs".
    std::vector<SweepAxis> axis;
    read_value(Json{{std::string(rest_), value_}}, axis, info, place_);
    for (SweepAxis& existing : axes) {
      if (existing.key == axis.front().key) {
        existing = axis.front();
        return;
      }
    }
    axes.push_back(axis.front());
  }

 private:
  [[noreturn]] void fail_unknown(const std::vector<std::string>& elsewhere) const {
    place_.fail(
        fmt::format("unknown key \"{}\"{}", first_, did_you_mean(first_, known_, elsewhere)));
  }

  template <class T>
  void assign(T& member, const FieldInfo& info) {
    if constexpr (ConfigStruct<T>) {
      if (!rest_.empty()) {
        KeySetter(rest_, value_, place_).set(member);
        return;
      }
    } else if (!rest_.empty()) {
      place_.fail(fmt::format("\"{}\" has no keys of its own", first_));
    }
    // The mixer can change while its keys stay.
    T fresh = std::is_same_v<T, MixerOptions> ? std::move(member) : T{};
    read_value(value_, fresh, info, place_);
    member = std::move(fresh);
  }

  template <class T>
  void assign(std::vector<T>& list, const FieldInfo& info) {
    if (rest_.empty()) {
      read_value(value_, list, info, place_);
      return;
    }
    const auto [digits, inner] = split_first(rest_);
    if (list.empty()) place_.fail(fmt::format("\"{}\" is empty, it has no element", first_));
    std::size_t index = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    // Each element has one spelling: two would hide that a sweep sets it twice.
    const bool canonical = digits == "0" || !digits.starts_with('0');
    if (error != std::errc() || end != digits.data() + digits.size() || index >= list.size() ||
        !canonical) {
      place_.fail(
          fmt::format("\"{}\" has elements 0 to {}, no \"{}\"", first_, list.size() - 1, digits));
    }
    set_element(list[index], inner, info);
  }

  template <class T>
  void set_element(T& element, std::string_view inner, const FieldInfo& info) {
    if constexpr (std::is_same_v<T, MixerConfig>) {
      if (!inner.empty()) {
        KeySetter setter(inner, value_, place_);
        if (!setter.set_on_mixer(element)) {
          place_.fail(fmt::format("\"{}\" is {}; {} does not have it", inner,
                                  whose_key(setter.first_), element.name()));
        }
        return;
      }
    } else if constexpr (ConfigStruct<T>) {
      if (!inner.empty()) return KeySetter(inner, value_, place_).set(element);
    } else if (!inner.empty()) {
      place_.fail(fmt::format("elements of \"{}\" have no keys", first_));
    }
    T fresh{};
    read_value(value_, fresh, info, place_);
    element = std::move(fresh);
  }

  std::string_view first_;
  std::string_view rest_;
  const Json& value_;
  const Place& place_;
  bool found_ = false;
  std::vector<std::string_view> known_;
};

void set_on_every_mixer(RunConfig& config, std::string_view key, const Json& value,
                        const Place& place) {
  bool applied = false;
  for (MixerConfig& mixer : config.mixers) {
    applied = KeySetter(key, value, place).set_on_mixer(mixer) || applied;
  }
  if (!applied) {
    place.fail(fmt::format("\"mixer.{}\" is {}, and this config has none", key,
                           whose_key(split_first(key).first)));
  }
}

}  // namespace

KeyPath key_path(std::string_view key) {
  constexpr std::string_view kEveryMixer = "mixer.";
  if (key.starts_with(kEveryMixer)) {
    KeyPath path = {"mixers", std::string(kAnyElement)};
    for (std::string& part : key_path(key.substr(kEveryMixer.size()))) path.push_back(part);
    return path;
  }
  KeyPath path;
  for (;;) {
    const std::size_t dot = key.find('.');
    path.emplace_back(key.substr(0, dot));
    if (dot == std::string_view::npos) return path;
    key.remove_prefix(dot + 1);
  }
}

bool overlap(const KeyPath& a, const KeyPath& b) {
  const auto both = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return std::equal(a.begin(), a.begin() + both, b.begin(),
                    [](std::string_view one, std::string_view other) {
                      return one == other || one == kAnyElement || other == kAnyElement;
                    });
}

bool covers(const KeyPath& a, const KeyPath& b) {
  return a.size() <= b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](std::string_view one, std::string_view other) {
                                              return one == other || one == kAnyElement;
                                            });
}

void set_key(RunConfig& config, std::string_view key, const Json& value, const Place& place) {
  const auto [first, rest] = split_first(key);
  if (first == "mixer" && !rest.empty()) {
    set_on_every_mixer(config, rest, value, place);
  } else {
    KeySetter(key, value, place).set(config);
  }
}

}  // namespace vla_bench
