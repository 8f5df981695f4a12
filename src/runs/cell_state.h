// The progress of cells, from their folders and packs, and estimates for the remaining ones.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runs/pack.h"
#include "runs/plan.h"

namespace vla_bench {

/// done: sealed (ok, skipped or diverged). failed: sealed as failed; the next run repeats it.
/// damaged: its record is truncated or edited; the next run repeats it. begun: started, perhaps
/// after a failure, and not sealed since; a process is working on it or was killed.
enum class CellStage { to_do, begun, failed, damaged, done };

struct CellState {
  CellStage stage = CellStage::to_do;
  std::string reason{};                 // failed and damaged only
  std::optional<double> seconds{};      // done only: its duration; unknown from early versions
  Index step = 0;                       // begun only: its checkpoint's, 0 without one
  std::optional<double> seconds_ago{};  // begun only: age of that checkpoint; empty without one
};
/// The state of a cell; its folder takes precedence over a pack.
CellState cell_state(const PlannedCell& planned, const PackIndex& packs);
/// The states of all cells, in their order.
std::vector<CellState> cell_states(std::span<const PlannedCell> plan, const PackIndex& packs);

/// The finished part of a cell's work: 1 when done, step / steps of a training.
double fraction_done(const PlannedCell& planned, const CellState& state);

/// Seconds a counted operation takes, by experiment and mixer: these reach different rates.
class Pace {
 public:
  void add(const PlannedCell& planned, double seconds);
  /// Estimated seconds of the whole cell, by the mean rate of its kind, else of all; empty when no
  /// cell was added.
  std::optional<double> seconds(const PlannedCell& planned) const;

 private:
  struct Sum {
    double flop = 0.0, seconds = 0.0;
  };
  static std::pair<ExperimentKind, std::string_view> kind_of(const PlannedCell& planned);
  std::map<std::pair<ExperimentKind, std::string_view>, Sum> kinds_;
  Sum all_;
};

}  // namespace vla_bench
