#include "experiments/experiment.h"

#include <new>
#include <stdexcept>

#include "core/error.h"
#include "experiments/record.h"

namespace vla_bench {
namespace {

CellResult dispatch(const CellConfig& cell, const CellEnvironment& environment) {
  switch (cell.config.experiment) {
    case ExperimentKind::mqar:
    case ExperimentKind::copy:
      return run_training(cell, environment);
    case ExperimentKind::recall:
      return run_recall(cell, environment);
    case ExperimentKind::state_norm:
      return run_state_norm(cell, environment);
    case ExperimentKind::jacobian:
      return run_jacobian(cell, environment);
    case ExperimentKind::latency:
      return run_latency(cell, environment);
  }
  throw std::logic_error("unknown experiment");
}

}  // namespace

std::string_view status_name(CellStatus status) {
  switch (status) {
    case CellStatus::ok:
      return "ok";
    case CellStatus::skipped:
      return "skipped";
    case CellStatus::diverged:
      return "diverged";
    case CellStatus::failed:
      return "failed";
    case CellStatus::interrupted:
      return "interrupted";
  }
  return "?";
}

CellResult run_cell(const CellConfig& cell, const CellEnvironment& environment) {
  try {
    return dispatch(cell, environment);
  } catch (const std::bad_alloc&) {
    return unmeasured(cell, environment, CellStatus::failed, "out of memory");
  } catch (const RunError& error) {
    return unmeasured(cell, environment, CellStatus::failed, error.what());
  }
}

}  // namespace vla_bench
