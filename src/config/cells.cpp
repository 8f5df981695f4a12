#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "config/dump.h"
#include "config/identity.h"
#include "config/labels.h"
#include "config/read.h"
#include "config/sweep.h"
#include "core/error.h"
#include "core/files.h"

namespace vla_bench {
namespace {

constexpr std::size_t kMaxCells = 100000;

/// Keys that a column of the experiment's table (or its folder) already tells apart.
bool has_column(ExperimentKind experiment, std::string_view key) {
  constexpr std::array training = {
      std::string_view("task.n_pairs"),  std::string_view("model.d_h"),
      std::string_view("model.n_heads"), std::string_view("task.seq_len"),
      std::string_view("task.layout"),   std::string_view("model.short_conv"),
      std::string_view("train.steps")};
  constexpr std::array recall = {std::string_view("model.d_h"), std::string_view("task.n_pairs"),
                                 std::string_view("recall.trials")};
  constexpr std::array latency = {
      std::string_view("latency.batch"),  std::string_view("model.n_heads"),
      std::string_view("model.d_h"),      std::string_view("task.seq_len"),
      std::string_view("latency.passes"), std::string_view("latency.implementations")};
  const auto in = [&](const auto& keys) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  if (key == "experiment" || key == "name" || key == "precision" || key.starts_with("seeds")) {
    return true;
  }
  switch (experiment) {
    case ExperimentKind::mqar:
    case ExperimentKind::copy:
      return in(training);
    case ExperimentKind::recall:
      return in(recall);
    case ExperimentKind::latency:
      return in(latency);
    case ExperimentKind::state_norm:
    case ExperimentKind::jacobian:
      return false;
  }
  return false;
}

/// Whether a swept key of mixers changes this one. A key of all mixers ("mixer.lambda_0") leaves
/// alone those that do not have it.
bool changes_mixer(std::string_view key, std::size_t index, const Json& mixer) {
  if (key.starts_with("mixer.")) return mixer.contains(std::string(key.substr(6)));
  return key.starts_with(fmt::format("mixers.{}.", index));
}

/// The mixer's label, made unambiguous in tables: a swept key without a column of its own is added.
std::string cell_label(const SweepPoint& point, std::size_t index) {
  const MixerConfig& mixer = point.config.mixers[index];
  const Json mixer_json = to_json(mixer);
  std::string label = mixer_label(mixer);
  for (std::size_t i = 0; i < point.assignments.size(); ++i) {
    const Assignment& assignment = point.assignments[i];
    if (has_column(point.config.experiment, assignment.key)) continue;
    const bool of_mixers =
        assignment.key.starts_with("mixer.") || assignment.key.starts_with("mixers");
    // A default label names the mixer's keys already.
    if (of_mixers && (mixer.label.empty() || assignment.key.ends_with(".label") ||
                      !changes_mixer(assignment.key, index, mixer_json))) {
      continue;
    }
    label += fmt::format(" {}={}", short_key(point.assignments, i), assignment.value);
  }
  if (label.size() > kMaxNameBytes) {
    throw BadInput(
        fmt::format("config: /mixers/{}/label: with the swept keys that no column shows it has {} "
                    "bytes, at most {} are allowed: \"{}\"",
                    index, label.size(), kMaxNameBytes, label));
  }
  return label;
}

std::string cell_title(const SweepPoint& point, const std::string& label, Index seed) {
  std::string title = label;
  for (std::size_t i = 0; i < point.assignments.size(); ++i) {
    const Assignment& assignment = point.assignments[i];
    if (!has_column(point.config.experiment, assignment.key)) continue;
    if (assignment.key == "seeds" || assignment.key == "name") continue;
    title += fmt::format(" {}={}", short_key(point.assignments, i), assignment.value);
  }
  return fmt::format("{} seed={}", title, seed);
}

}  // namespace

std::string_view computed_in(const RunConfig& config) {
  constexpr std::string_view kFloat64 = "float64";
  switch (config.experiment) {
    case ExperimentKind::recall:
      return kFloat64;
    case ExperimentKind::state_norm:
    case ExperimentKind::jacobian:
      if (config.probe.source == ProbeSource::gaussian) return kFloat64;
      break;
    case ExperimentKind::mqar:
    case ExperimentKind::copy:
    case ExperimentKind::latency:
      break;
  }
  return enum_name(config.precision);
}

std::vector<CellConfig> expand_cells(const RunConfig& config, Device device) {
  std::vector<CellConfig> cells;
  std::set<std::string> seen;
  for_each_point(config, "config", [&](const SweepPoint& point) {
    validate(point.config);
    for (std::size_t i = 0; i < point.config.mixers.size(); ++i) {
      const std::string label = cell_label(point, i);
      // What all seeds share, made once: copies of a long list of seeds would cost its square.
      RunConfig shared = point.config;
      if (shared.name.empty()) shared.name = enum_name(shared.experiment);
      shared.mixers = {point.config.mixers[i]};
      shared.mixers.front().label = label;
      shared.seeds.clear();
      shared.device = device == Device::cuda ? DeviceRequest::cuda : DeviceRequest::cpu;
      for (const Index seed : point.config.seeds) {
        CellConfig cell{shared, "", cell_title(point, label, seed)};
        cell.config.seeds = {seed};
        cell.hash = cell_hash(cell.config);
        // A sweep over a key that this mixer does not have gives the same cell at every point.
        if (!seen.insert(cell.hash + cell.config.name).second) continue;
        if (cells.size() == kMaxCells) {
          throw BadInput(fmt::format("config: more than {} cells", kMaxCells));
        }
        cells.push_back(std::move(cell));
      }
    }
  });
  return cells;
}

}  // namespace vla_bench
