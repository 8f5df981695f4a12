#include "config/identity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "config/dump.h"
#include "config/read.h"
#include "core/files.h"
#include "core/text.h"

namespace vla_bench {
namespace {

/// Sections, or single keys of them, that an experiment reads.
std::span<const std::string_view> read_by(ExperimentKind experiment) {
  using std::string_view_literals::operator""sv;
  static constexpr std::array kMqar = {"model"sv, "task"sv, "train"sv, "eval"sv};
  static constexpr std::array kCopy = {"model"sv, "task.seq_len"sv, "train"sv, "eval"sv};
  static constexpr std::array kRecall = {"model.d_h"sv, "task.n_pairs"sv, "recall"sv};
  static constexpr std::array kProbe = {"model"sv, "task.seq_len"sv, "probe"sv};
  static constexpr std::array kLatency = {"model.n_heads"sv, "model.d_h"sv, "task.seq_len"sv,
                                          "latency"sv};
  switch (experiment) {
    case ExperimentKind::mqar:
      return kMqar;
    case ExperimentKind::copy:
      return kCopy;
    case ExperimentKind::recall:
      return kRecall;
    case ExperimentKind::state_norm:
    case ExperimentKind::jacobian:
      return kProbe;
    case ExperimentKind::latency:
      return kLatency;
  }
  return {};
}

/// Collects the keys of a config struct whose values can change a result.
class KeyCollector {
 public:
  KeyCollector(std::string prefix, const MixerConfig* mixer)
      : prefix_(std::move(prefix)), mixer_(mixer) {}

  template <class T>
  void field(const char* key, T& member, const FieldInfo& info) {
    if (!info.changes_result) return;
    if (mixer_ != nullptr && info.only && *info.only != mixer_->mixer) return;
    const std::string name = prefix_ + key;
    if constexpr (ConfigStruct<T>) {
      KeyCollector inner(name + ".", nullptr);
      member.visit(inner);
      std::move(inner.keys.begin(), inner.keys.end(), std::back_inserter(keys));
    } else {
      keys.emplace_back(name, text(to_json(std::as_const(member))));
    }
  }
  void field(const char*, std::vector<MixerConfig>&, const FieldInfo&) {}  // taken by itself
  void sweep(const char*, std::vector<SweepAxis>&, const FieldInfo&) {}

  std::vector<std::pair<std::string, std::string>> keys;

 private:
  /// Doubles in their shortest form, whatever the versions of the libraries.
  static std::string text(const Json& value) {
    if (value.is_number_float()) return number_text(value.get<double>());
    return value.is_string() ? value.get<std::string>() : value.dump();
  }

  std::string prefix_;
  const MixerConfig* mixer_;
};

template <class T>
std::vector<std::pair<std::string, std::string>> keys_of(T config, const std::string& prefix,
                                                         const MixerConfig* mixer = nullptr) {
  KeyCollector collector(prefix, mixer);
  config.visit(collector);
  return std::move(collector.keys);
}

/// `value` with a sequence length that is spelled out.
RunConfig with_length(RunConfig config) {
  config.task.seq_len = sequence_length(config);
  return config;
}

/// The defaults that `cell` is compared with: its own sequence length is that of its other keys.
RunConfig defaults_of(const RunConfig& cell) {
  RunConfig length = cell;
  length.task.seq_len.reset();
  RunConfig defaults;
  defaults.task.seq_len = sequence_length(length);
  return defaults;
}

bool is_read(std::string_view key, std::span<const std::string_view> read) {
  return std::any_of(read.begin(), read.end(), [&](std::string_view section) {
    return key == section || (key.starts_with(section) && key[section.size()] == '.');
  });
}

std::string text_of(const std::vector<IdentityKey>& keys, bool with_seed) {
  std::vector<std::string> lines;
  for (const IdentityKey& key : keys) {
    if (key.is_default || (key.key == "seed" && !with_seed)) continue;
    lines.push_back(fmt::format("{}={}\n", key.key, key.value));
  }
  std::sort(lines.begin(), lines.end());
  return fmt::format("{}", fmt::join(lines, ""));
}

}  // namespace

std::vector<IdentityKey> identity_keys(const RunConfig& cell) {
  const auto text = [](std::string_view name) { return std::string(name); };
  const std::string_view precision = computed_in(cell);
  const MixerConfig& mixer = cell.mixers.front();
  std::vector<IdentityKey> keys = {
      {"experiment", text(enum_name(cell.experiment)), false},
      {"device", text(enum_name(cell.device)), false},
      // Where memories are stepped in float64 whatever the config asks for, that is no key.
      {"precision", text(precision),
       precision == enum_name(Precision::float32) || precision != enum_name(cell.precision)},
      {"seed", std::to_string(cell.seeds.front()), false},
  };
  const auto append = [&](const auto& own, const auto& defaults) {
    for (std::size_t i = 0; i < own.size(); ++i) {
      keys.push_back({own[i].first, own[i].second, own[i].second == defaults[i].second});
    }
  };
  // The kind of the mixer always counts; its keys are compared with a mixer of that kind.
  append(keys_of(mixer, "mixer.", &mixer),
         keys_of(MixerConfig{.mixer = mixer.mixer}, "mixer.", &mixer));
  const auto kind = std::find_if(keys.begin(), keys.end(),
                                 [](const IdentityKey& key) { return key.key == "mixer.mixer"; });
  kind->is_default = false;

  auto own = keys_of(with_length(cell), "");
  auto defaults = keys_of(defaults_of(cell), "");
  const std::span<const std::string_view> read = read_by(cell.experiment);
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (!is_read(own[i].first, read)) continue;
    keys.push_back({own[i].first, own[i].second, own[i].second == defaults[i].second});
  }
  return keys;
}

std::string identity_text(const RunConfig& cell) { return text_of(identity_keys(cell), true); }

std::string cell_hash(const RunConfig& cell) { return hash_hex(identity_text(cell)); }

std::string group_hash(const RunConfig& cell) {
  return hash_hex(text_of(identity_keys(cell), false)).substr(0, 8);
}

}  // namespace vla_bench
