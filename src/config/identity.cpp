#include "config/identity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "config/dump.h"
#include "config/read.h"
#include "core/files.h"
#include "core/text.h"
#include "experiments/list.h"

namespace vla_bench {
namespace {

constexpr std::string_view kSeed = "seed";

std::span<const std::string_view> read_by(ExperimentKind experiment) {
  return with_experiment(experiment,
                         []<class E>() { return std::span<const std::string_view>(E::reads); });
}

/// Whether `key` is `section` or a key of it.
bool is_in(std::string_view key, std::string_view section) {
  return key == section || (key.starts_with(section) && key[section.size()] == '.');
}

bool is_read(std::string_view key, std::span<const std::string_view> read) {
  return std::any_of(read.begin(), read.end(),
                     [&](std::string_view section) { return is_in(key, section); });
}

/// Whether any key below `section` is read.
bool is_read_in_part(std::string_view section, std::span<const std::string_view> read) {
  return std::any_of(read.begin(), read.end(),
                     [&](std::string_view key) { return is_in(key, section); });
}

// Doubles in their shortest form, independent of library versions. Not through JSON, since a report
// needs the keys of 10^5 cells.
std::string key_text(bool value) { return value ? "true" : "false"; }
std::string key_text(Index value) { return std::to_string(value); }
std::string key_text(double value) { return number_text(value); }
std::string key_text(const std::string& value) { return value; }
template <class E>
requires std::is_enum_v<E> std::string key_text(E value) { return std::string(enum_name(value)); }
std::string key_text(const MixerOptions& options) { return std::string(mixer_name(options)); }
template <class T>
std::string key_text(const std::optional<T>& value) {
  return value ? key_text(*value) : "null";
}
template <class T>
std::string key_text(const std::vector<T>& values) {
  return to_json(values).dump();
}
// "[64/4x391,128/8x79]" and "[64/4,64/8]": short enough for the name of a line.
std::string key_text(const TrainSegment& segment) {
  return fmt::format("{}x{}", slice_name(segment.seq_len, segment.n_pairs), segment.steps);
}
std::string key_text(const EvalSegment& segment) {
  return slice_name(segment.seq_len, segment.n_pairs);
}
template <class Segment>
std::string list_text(const std::vector<Segment>& segments) {
  std::vector<std::string> texts;
  for (const Segment& segment : segments) texts.push_back(key_text(segment));
  return fmt::format("[{}]", fmt::join(texts, ","));
}
std::string key_text(const std::vector<TrainSegment>& segments) { return list_text(segments); }
std::string key_text(const std::vector<EvalSegment>& segments) { return list_text(segments); }

/// Collects the keys that can change a result: all of a mixer, or those of the sections that are
/// read.
class KeyCollector {
 public:
  KeyCollector() : prefix_("mixer."), of_mixer_(true) {}
  explicit KeyCollector(std::span<const std::string_view> read) : read_(read) {}

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    if (!info.changes_result) return;
    std::string name = prefix_ + key;
    if constexpr (ConfigStruct<T>) {
      if (!is_read_in_part(name, read_) && !is_read(name, read_)) return;
      const std::string outer = std::exchange(prefix_, name + ".");
      member.visit(*this);
      prefix_ = outer;
    } else if (of_mixer_ || is_read(name, read_)) {
      keys.push_back({.key = std::move(name),
                      .value = key_text(std::as_const(member)),
                      .named_at_default = info.named_at_default});
    }
  }
  void field(const char*, std::vector<MixerConfig>&, const FieldInfo&) {}  // collected separately
  void sweep(const char*, std::vector<SweepAxis>&, const FieldInfo&) {}

  std::vector<IdentityKey> keys;

 private:
  std::string prefix_{};
  bool of_mixer_ = false;
  std::span<const std::string_view> read_{};
};

std::vector<IdentityKey> mixer_keys(MixerConfig mixer) {
  KeyCollector collector;
  mixer.visit(collector);
  return std::move(collector.keys);
}

std::vector<IdentityKey> section_keys(RunConfig config) {
  KeyCollector collector(read_by(config.experiment));
  config.visit(collector);
  return std::move(collector.keys);
}

/// The keys of a mixer of this type, or of the sections that this experiment reads, as they are
/// when nothing is said; made once.
const std::vector<IdentityKey>& default_keys(const MixerOptions& options) {
  static const auto defaults = [] {
    std::vector<std::vector<IdentityKey>> keys;
    for (const MixerConfig& mixer : every_mixer()) keys.push_back(mixer_keys(mixer));
    return keys;
  }();
  return defaults[options.index()];
}
const std::vector<IdentityKey>& default_keys(ExperimentKind kind) {
  static const auto defaults = [] {
    std::map<ExperimentKind, std::vector<IdentityKey>> keys;
    for (const auto& [experiment, name] : enum_names<ExperimentKind>) {
      RunConfig config;
      config.experiment = experiment;
      keys[experiment] = section_keys(config);
    }
    return keys;
  }();
  return defaults.at(kind);
}

/// Appends `own`, each compared with its default.
void append_keys(std::vector<IdentityKey>& keys, std::vector<IdentityKey> own,
                 const std::vector<IdentityKey>& defaults) {
  for (std::size_t i = 0; i < own.size(); ++i) {
    own[i].is_default = own[i].value == defaults[i].value;
    if (own[i].is_default && !own[i].named_at_default) continue;
    keys.push_back(std::move(own[i]));
  }
}

IdentityKey* find_key(std::vector<IdentityKey>& keys, std::string_view name) {
  const auto found = std::find_if(keys.begin(), keys.end(),
                                  [&](const IdentityKey& key) { return key.key == name; });
  return found == keys.end() ? nullptr : &*found;
}

}  // namespace

bool reads_key(const RunConfig& config, std::string_view key) {
  return is_read(key, read_by(config.experiment));
}

std::vector<IdentityKey> identity_keys(const RunConfig& cell) {
  const auto text = [](std::string_view name) { return std::string(name); };
  const std::string_view precision = computed_in(cell);
  const MixerConfig& mixer = cell.mixers.front();
  std::vector<IdentityKey> keys = {
      {"experiment", text(enum_name(cell.experiment)), false},
      {"device", text(enum_name(cell.device)), false},
      // Not a key where memories are stepped in float64 for any config.
      {"precision", text(precision),
       precision == enum_name(Precision::float32) || precision != enum_name(cell.precision)},
      {std::string(kSeed), std::to_string(cell.seeds.front()), false},
  };
  append_keys(keys, mixer_keys(mixer), default_keys(mixer.options));
  // The mixer's name is always part of the identity; its keys are compared with that mixer's.
  find_key(keys, "mixer.mixer")->is_default = false;

  // The sequence length is resolved, and so is its default, from the other keys.
  RunConfig own = cell;
  own.task.seq_len.reset();
  const std::string default_length = std::to_string(sequence_length(own));
  own.task.seq_len = sequence_length(cell);
  append_keys(keys, section_keys(std::move(own)), default_keys(cell.experiment));
  if (IdentityKey* length = find_key(keys, "task.seq_len")) {
    length->is_default = length->value == default_length;
  }
  return keys;
}

std::string group_text(const RunConfig& cell) {
  std::vector<std::string> lines;
  for (const IdentityKey& key : identity_keys(cell)) {
    if (!key.is_default && key.key != kSeed) lines.push_back(key.key + "=" + key.value + "\n");
  }
  std::sort(lines.begin(), lines.end());
  return fmt::format("{}", fmt::join(lines, ""));
}

std::string with_seed(std::string_view group_text, Index seed) {
  const std::string line = fmt::format("{}={}\n", kSeed, seed);
  std::size_t at = 0;  // start of the first line that sorts after it
  while (at < group_text.size()) {
    const std::size_t end = group_text.find('\n', at) + 1;
    if (line < group_text.substr(at, end - at)) break;
    at = end;
  }
  return std::string(group_text.substr(0, at)) + line + std::string(group_text.substr(at));
}

std::string identity_text(const RunConfig& cell) {
  return with_seed(group_text(cell), cell.seeds.front());
}

std::string cell_hash(const RunConfig& cell) { return hash_hex(identity_text(cell)); }

std::string group_hash(const RunConfig& cell) { return group_hash_of_text(group_text(cell)); }

std::string group_hash_of_text(std::string_view group_text) {
  return hash_hex(group_text).substr(0, 8);
}

}  // namespace vla_bench
