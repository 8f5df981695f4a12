#include "cli/cell_state.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <system_error>

#include "cli/failed_cells.h"
#include "core/error.h"
#include "core/safetensors.h"

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;

/// When the file was written; nothing where there is none.
std::optional<fs::file_time_type> time_of(const fs::path& path) {
  std::error_code code;
  const fs::file_time_type time = fs::last_write_time(path, code);
  if (code) return std::nullopt;
  return time;
}

/// A checkpoint that is replaced or removed while we look counts as none.
void read_checkpoint(const PlannedCell& planned, CellState& state) {
  const fs::path path = planned.directory.checkpoint();
  const auto written = time_of(path);
  if (!written) return;
  try {
    state.step = TensorFile::read(path).integer("step");
  } catch (const BadInput&) {
    return;
  }
  const std::chrono::duration<double> age = fs::file_time_type::clock::now() - *written;
  // Clocks of machines that share a folder differ.
  state.seconds_ago = std::max(0.0, age.count());
}

}  // namespace

CellState cell_state(const PlannedCell& planned) {
  CellState state;
  const RunDirectory& directory = planned.directory;
  if (planned.finished()) {
    state.stage = CellStage::done;
    state.seconds = directory.read_outcome().seconds;
    return state;
  }
  const auto begun = time_of(directory.config());
  if (!begun) return state;
  const auto failed = time_of(failed_path(directory, planned.schema->name));
  // The config is the first file of an attempt: one that is newer is another try.
  if (failed && *failed >= *begun) {
    state.stage = CellStage::failed;
    state.reason = directory.read_outcome().reason;
    return state;
  }
  state.stage = CellStage::begun;
  read_checkpoint(planned, state);
  return state;
}

double fraction_done(const PlannedCell& planned, const CellState& state) {
  if (state.stage == CellStage::done) return 1.0;
  if (state.stage != CellStage::begun) return 0.0;
  return static_cast<double>(state.step) / static_cast<double>(planned.cell.config.train.steps);
}

std::pair<ExperimentKind, MixerKind> Pace::kind_of(const PlannedCell& planned) {
  const RunConfig& config = planned.cell.config;
  return {config.experiment, config.mixers.front().mixer};
}

void Pace::add(const PlannedCell& planned, double seconds) {
  for (Sum* sum : {&kinds_[kind_of(planned)], &all_}) {
    sum->flop += static_cast<double>(planned.flop);
    sum->seconds += seconds;
  }
}

std::optional<double> Pace::seconds(const PlannedCell& planned) const {
  const auto kind = kinds_.find(kind_of(planned));
  const Sum& sum = kind == kinds_.end() ? all_ : kind->second;
  if (!(sum.flop > 0.0)) return std::nullopt;
  return static_cast<double>(planned.flop) * sum.seconds / sum.flop;
}

}  // namespace vla_bench::cli
