// What follows from more than one key, of a config without a sweep; checks first of all.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>

#include "config/read.h"
#include "experiments/list.h"

namespace vla_bench {
namespace {

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

void validate_name(const RunConfig& config) {
  const std::string& name = config.name;
  const bool plain = name != "." && name != ".." && name.size() <= kMaxNameBytes &&
                     name.find_first_of("/\\") == std::string::npos && !has_control_character(name);
  require(plain, "/name", "expected a plain folder name of at most {} bytes", kMaxNameBytes);
}

void validate_mixers(const RunConfig& config) {
  require(!config.mixers.empty(), "/mixers", "expected at least one mixer");
  std::set<std::string> labels;
  for (std::size_t i = 0; i < config.mixers.size(); ++i) {
    const MixerConfig& mixer = config.mixers[i];
    const std::string pointer = fmt::format("/mixers/{}", i);
    const std::string label = mixer_label(mixer);
    require(label.size() <= kMaxNameBytes && !has_control_character(label), pointer + "/label",
            "expected at most {} bytes without control characters", kMaxNameBytes);
    require(labels.insert(label).second, pointer,
            "label \"{}\" is taken by an earlier mixer; give this one its own \"label\"", label);
  }
}

void validate_layers(const ModelConfig& model) {
  const auto listed = static_cast<Index>(model.layers.size());
  require(listed == 0 || listed == model.n_layers, "/model/layers",
          "expected one kind for each of model.n_layers ({}) layers or an empty list, got {}",
          model.n_layers, listed);
  require(model.mixer_layers() > 0, "/model/layers", "expected at least one layer to be \"mixer\"");
}

void validate_seeds(const RunConfig& config) {
  require(!config.seeds.empty(), "/seeds", "expected at least one seed");
  std::vector<Index> seeds = config.seeds;
  std::sort(seeds.begin(), seeds.end());
  const auto twice = std::adjacent_find(seeds.begin(), seeds.end());
  require(twice == seeds.end(), "/seeds", "{} stands twice", twice == seeds.end() ? 0 : *twice);
}

}  // namespace

Index sequence_length(const RunConfig& config) {
  return with_experiment(config.experiment, [&]<class E>() { return E::sequence_length(config); });
}

Index targets_per_row(const RunConfig& config) {
  return with_experiment(config.experiment, [&]<class E>() { return E::targets_per_row(config); });
}

RowKind row_kind(const RunConfig& config) {
  return with_experiment(config.experiment, [&]<class E>() { return E::row_kind(config); });
}

std::string_view computed_in(const RunConfig& config) {
  const bool in_float64 =
      with_experiment(config.experiment, [&]<class E>() { return E::in_float64(config); });
  return in_float64 ? "float64" : enum_name(config.precision);
}

void validate(const RunConfig& config) {
  validate_name(config);
  validate_mixers(config);
  validate_layers(config.model);
  validate_seeds(config);
  with_experiment(config.experiment, [&]<class E>() { E::validate(config); });
}

}  // namespace vla_bench
