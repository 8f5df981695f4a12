#include "experiments/experiment.h"

#include <new>

#include "core/error.h"
#include "experiments/list.h"
#include "experiments/record.h"

namespace vla_bench {
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
    return with_experiment(cell.config.experiment,
                           [&]<class E>() { return E::run(cell, environment); });
  } catch (const std::bad_alloc&) {
    return unmeasured(cell, environment, CellStatus::failed, "out of memory");
  } catch (const RunError& error) {
    return unmeasured(cell, environment, CellStatus::failed, error.what());
  }
}

}  // namespace vla_bench
