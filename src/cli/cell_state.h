// How far a cell is, as its folder tells, and what cells that are done say about the others.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "cli/plan.h"

namespace vla_bench::cli {

/// done: its table is published (ok, skipped or diverged). failed: the last attempt failed, the
/// next run tries again. begun: started and neither; a process may be at it, or have been killed
/// there.
enum class CellStage { to_do, begun, failed, done };

struct CellState {
  CellStage stage = CellStage::to_do;
  std::string reason{};                 // failed alone
  std::optional<double> seconds{};      // done alone: what it took; empty in older folders
  Index step = 0;                       // begun alone: of its checkpoint, 0 without one
  std::optional<double> seconds_ago{};  // begun alone: since that checkpoint; empty without one
};
CellState cell_state(const PlannedCell& planned);

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
  static std::pair<ExperimentKind, MixerKind> kind_of(const PlannedCell& planned);
  std::map<std::pair<ExperimentKind, MixerKind>, Sum> kinds_;
  Sum all_;
};

}  // namespace vla_bench::cli
