#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "config/identity.h"
#include "config/read.h"
#include "config/sweep.h"
#include "core/error.h"
#include "core/files.h"
#include "experiments/list.h"

namespace vla_bench {
namespace {

constexpr std::size_t kMaxCells = 100000;

/// Whether the mixer's label or the folder already shows the assignment.
bool told_apart(const Assignment& assignment, const MixerConfig& mixer) {
  const std::string_view key = assignment.key;
  const bool of_mixers = key.starts_with("mixer.") || key.starts_with("mixers");
  return key == "seeds" || key == "name" || key == "mixers" || (of_mixers && mixer.label.empty());
}

/// "vla n_pairs=8 lr=0.001 seed=42", for people who watch a run.
std::string cell_title(const SweepPoint& point, const MixerConfig& mixer, Index seed) {
  std::string title = mixer_label(mixer);
  for (std::size_t i = 0; i < point.assignments.size(); ++i) {
    const Assignment& assignment = point.assignments[i];
    if (told_apart(assignment, mixer)) continue;
    title += fmt::format(" {}={}", short_key(point.assignments, i), assignment.value);
  }
  return fmt::format("{} seed={}", title, seed);
}

}  // namespace

std::vector<CellConfig> expand_cells(const RunConfig& config, Device device) {
  std::vector<CellConfig> cells;
  std::set<std::string> seen;
  for_each_point(config, "config", [&](const SweepPoint& point) {
    validate(point.config);
    for (std::size_t i = 0; i < point.config.mixers.size(); ++i) {
      const MixerConfig& mixer = point.config.mixers[i];
      // Made once for all seeds: copying a long list of seeds for each would be quadratic.
      RunConfig shared = point.config;
      if (shared.name.empty()) shared.name = enum_name(shared.experiment);
      shared.mixers = {mixer};
      shared.mixers.front().label = mixer_label(mixer);
      shared.seeds.clear();
      shared.device = device == Device::cuda ? DeviceRequest::cuda : DeviceRequest::cpu;
      for (const Index seed : point.config.seeds) {
        CellConfig cell{shared, "", cell_title(point, mixer, seed)};
        cell.config.seeds = {seed};
        cell.hash = cell_hash(cell.config);
        // A sweep over a key that this mixer lacks gives the same cell at every point.
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
