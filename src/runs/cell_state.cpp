#include "runs/cell_state.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <system_error>

#include "core/error.h"
#include "core/parallel.h"
#include "core/safetensors.h"
#include "runs/find.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

/// The time when the file was written; empty when there is none.
std::optional<fs::file_time_type> time_of(const fs::path& path) {
  std::error_code code;
  const fs::file_time_type time = fs::last_write_time(path, code);
  if (code) return std::nullopt;
  return time;
}

/// A checkpoint that is replaced or removed during the read counts as none.
void read_checkpoint(const PlannedCell& planned, CellState& state) {
  const fs::path path = planned.folder.checkpoint();
  const auto written = time_of(path);
  if (!written) return;
  try {
    state.step = TensorFile::read(path).integer("step");
  } catch (const BadInput&) {
    return;
  }
  const std::chrono::duration<double> age = fs::file_time_type::clock::now() - *written;
  // Clocks of machines that share a folder may differ.
  state.seconds_ago = std::max(0.0, age.count());
}

CellState sealed_state(const CellOutcome& outcome) {
  if (outcome.status == "failed") return {.stage = CellStage::failed, .reason = outcome.reason};
  return {.stage = CellStage::done, .seconds = outcome.seconds};
}

}  // namespace

CellState cell_state(const PlannedCell& planned, const PackIndex& packs) {
  CellState state;
  std::error_code ignored;
  const auto sealed = look_up(planned.folder);
  const bool begun = fs::exists(planned.folder.begun(), ignored);
  if (sealed && !sealed->damage.empty()) {
    state.stage = CellStage::damaged;
    state.reason = sealed->damage;
  } else if (sealed && !(begun && sealed->head.outcome.status == "failed")) {
    return sealed_state(sealed->head.outcome);
  } else if (begun) {
    state.stage = CellStage::begun;
    read_checkpoint(planned, state);
  } else if (const RecordHead* packed = packs.find(planned.cell.config.name, planned.cell.hash)) {
    return sealed_state(packed->outcome);
  }
  return state;
}

std::vector<CellState> cell_states(std::span<const PlannedCell> plan, const PackIndex& packs) {
  std::vector<CellState> states(plan.size());
  parallel_items(kFileReaders, static_cast<Index>(plan.size()), [&](Index item) {
    const auto at = static_cast<std::size_t>(item);
    states[at] = cell_state(plan[at], packs);
  });
  return states;
}

double fraction_done(const PlannedCell& planned, const CellState& state) {
  if (state.stage == CellStage::done) return 1.0;
  if (state.stage != CellStage::begun) return 0.0;
  return static_cast<double>(state.step) / static_cast<double>(planned.cell.config.train.steps);
}

std::pair<ExperimentKind, std::string_view> Pace::kind_of(const PlannedCell& planned) {
  const RunConfig& config = planned.cell.config;
  return {config.experiment, config.mixers.front().name()};
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

}  // namespace vla_bench
