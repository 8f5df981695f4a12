// Runs a cell: from its config to its table. Each experiment has a file that defines its `run`.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>

#include "config/read.h"
#include "ops/ops.h"
#include "report/table.h"
#include "train/trainer.h"

namespace vla_bench {

/// The resources of a running cell.
struct CellEnvironment {
  Context context;
  std::filesystem::path checkpoint;  // of a training; empty: none is written (tests)
  std::function<void(const TrainProgress&)> progress;
  const std::atomic<bool>* stop = nullptr;
};

enum class CellStatus { ok, skipped, diverged, failed, interrupted };
std::string_view status_name(CellStatus status);

struct CellResult {
  CellStatus status = CellStatus::ok;
  std::string reason;
  std::string warning;  // a message for the user, although the cell was run
  Table table;          // of the experiment's schema; with a status column, a row even when not ok
  Table history;        // only of trainings
};

/// Runs one cell. Failures of the cell (out of memory, divergence) become its status rather than an
/// exception. BadInput passes through.
CellResult run_cell(const CellConfig& cell, const CellEnvironment& environment);

}  // namespace vla_bench
