// How far cells are, as their folders and packs tell, and what those that are done say about the
// others.
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

/// done: sealed (ok, skipped or diverged). failed: sealed as failed, the next run tries again.
/// damaged: its record is cut or edited, the next run does it again. begun: started and not sealed;
/// a process may be at it, or have been killed there.
enum class CellStage { to_do, begun, failed, damaged, done };

struct CellState {
  CellStage stage = CellStage::to_do;
  std::string reason{};                 // failed and damaged only
  std::optional<double> seconds{};      // done only: what it took; unknown of early versions
  Index step = 0;                       // begun only: of its checkpoint, 0 without one
  std::optional<double> seconds_ago{};  // begun only: since that checkpoint; empty without one
};
/// A cell's folder wins over a pack.
CellState cell_state(const PlannedCell& planned, const PackIndex& packs);
/// Of all cells, in their order.
std::vector<CellState> cell_states(std::span<const PlannedCell> plan, const PackIndex& packs);

/// The part of a cell's work that its folder holds: 1 when done, step / steps of a training.
double fraction_done(const PlannedCell& planned, const CellState& state);

/// Seconds a counted operation takes, by experiment and mixer: these reach different rates.
class Pace {
 public:
  void add(const PlannedCell& planned, double seconds);
  /// Seconds of the whole cell, by the mean rate of its kind, else of all; nothing when no cell was
  /// ever added.
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
