#include "config/set_key.h"

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

/// Visits the structs on the way to one key.
class KeySetter {
 public:
  KeySetter(std::string_view path, const Json& value, const Place& place)
      : first_(split_first(path).first),
        rest_(split_first(path).second),
        value_(value),
        place_(place) {}

  /// Sets the key of `target`; `mixer` is target when that is a MixerConfig.
  template <ConfigStruct T>
  void set(T& target, const MixerConfig* mixer = nullptr) {
    mixer_ = mixer;
    target.visit(*this);
    if (!found_) {
      place_.fail(fmt::format("unknown key \"{}\"{}", first_,
                              did_you_mean(first_, known_, keys_below(target))));
    }
  }

  /// The mixer that alone has the key, when it has been found to be another's.
  std::optional<MixerKind> foreign() const { return foreign_; }

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    known_.push_back(key);
    if (found_ || first_ != key) return;
    found_ = true;
    if (mixer_ != nullptr && info.only && *info.only != mixer_->mixer) {
      foreign_ = info.only;
    } else {
      assign(member, info);
    }
  }
  void sweep(const char* key, std::vector<SweepAxis>& axes, const FieldInfo& info) {
    known_.push_back(key);
    if (first_ != key) return;
    found_ = true;
    if (rest_.empty()) {
      read_value(value_, axes, info, place_);
      return;
    }
    // An axis is named by all that follows: "sweep.task.n_pairs".
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
    T fresh{};
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
    std::size_t index = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    // One spelling an element: two would hide that a sweep sets it twice.
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
        setter.set(element, &element);
        if (setter.foreign()) {
          place_.fail(fmt::format("\"{}\" is {}", inner,
                                  foreign_key_message(*setter.foreign(), element.mixer)));
        }
        return;
      }
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
  const MixerConfig* mixer_ = nullptr;
  bool found_ = false;
  std::optional<MixerKind> foreign_;
  std::vector<std::string_view> known_;
};

void set_on_every_mixer(RunConfig& config, std::string_view key, const Json& value,
                        const Place& place) {
  std::optional<MixerKind> owner;
  bool applied = false;
  for (MixerConfig& mixer : config.mixers) {
    KeySetter setter(key, value, place);
    setter.set(mixer, &mixer);
    if (setter.foreign()) {
      owner = setter.foreign();
    } else {
      applied = true;
    }
  }
  if (!applied) {
    place.fail(fmt::format("\"mixer.{}\" is a key of mixer {}, and this config has none", key,
                           owner ? enum_name(*owner) : "?"));
  }
}

}  // namespace

void set_key(RunConfig& config, std::string_view key, const Json& value, const Place& place) {
  const auto [first, rest] = split_first(key);
  if (first == "mixer" && !rest.empty()) {
    set_on_every_mixer(config, rest, value, place);
  } else {
    KeySetter(key, value, place).set(config);
  }
}

}  // namespace vla_bench
