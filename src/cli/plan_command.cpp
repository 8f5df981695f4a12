// vla-bench plan: the cells of a sweep, the finished ones, and their distribution to tasks.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "cli/sweep_options.h"
#include "core/error.h"
#include "runs/cell_state.h"
#include "runs/plan.h"

namespace vla_bench::cli {
namespace {

// Schedulers limit job arrays to fewer tasks.
constexpr Index kMostTasks = 1'000'000;

struct PlanOptions {
  SweepOptions sweep;
  Index tasks = 1;
  std::string format = "markdown";
  std::vector<std::string> tables;
};

/// The remaining work of some cells.
struct Rest {
  std::int64_t cells = 0, finished = 0;
  double flop_of_all = 0.0, flop = 0.0;
  double seconds = 0.0;
  bool timed = true;  // every remaining cell has an estimate

  void add(const PlannedCell& planned, const CellState& state, const Pace& pace) {
    ++cells;
    const auto counted = static_cast<double>(planned.flop);
    flop_of_all += counted;
    if (state.stage == CellStage::done) {
      ++finished;
      return;
    }
    const double left = 1.0 - fraction_done(planned, state);
    flop += left * counted;
    const auto estimate = pace.seconds(planned);
    if (estimate) seconds += left * *estimate;
    timed = timed && estimate.has_value();
  }
  Value seconds_to_do() const { return timed ? Value(seconds) : Value(); }
};

Table sweep_table(const std::map<std::string, Rest>& folders, Device device) {
  Table table;
  table.name = "sweep";
  table.columns = {"device", "cells", "finished", "to_do", "flop_to_do", "seconds_to_do", "folder"};
  for (const auto& [folder, rest] : folders) {
    table.add({std::string(device_name(device)), rest.cells, rest.finished,
               rest.cells - rest.finished, rest.flop, rest.seconds_to_do(), folder});
  }
  return table;
}

Table tasks_table(const std::vector<Rest>& tasks) {
  double sum = 0.0;
  for (const Rest& rest : tasks) sum += rest.flop_of_all;
  const double mean = sum / static_cast<double>(tasks.size());
  Table table;
  table.name = "tasks";
  table.columns = {"task",      "cells",      "finished",     "to_do",
                   "over_mean", "flop_to_do", "seconds_to_do"};
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const Rest& rest = tasks[i];
    table.add({static_cast<std::int64_t>(i), rest.cells, rest.finished, rest.cells - rest.finished,
               rest.flop_of_all / mean, rest.flop, rest.seconds_to_do()});
  }
  return table;
}

int plan(const PlanOptions& options) {
  const RunConfig config = read_sweep(options.sweep);
  // The plan's GPU need not be available, since plans are made where jobs are submitted.
  const Device device =
      config.device == DeviceRequest::cuda ? Device::cuda : resolve_device(config.device);
  const auto cells = plan_cells(config, device, options.sweep.out, options.tasks);
  const PackIndex packs(options.sweep.out);
  const std::vector<CellState> states = cell_states(cells, packs);
  Pace pace;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (states[i].seconds) pace.add(cells[i], *states[i].seconds);
  }
  std::map<std::string, Rest> folders;
  std::vector<Rest> tasks(static_cast<std::size_t>(options.tasks));
  for (std::size_t i = 0; i < cells.size(); ++i) {
    folders[cells[i].folder.path.parent_path().string()].add(cells[i], states[i], pace);
    tasks[static_cast<std::size_t>(cells[i].shard)].add(cells[i], states[i], pace);
  }
  print_tables(select_tables({sweep_table(folders, device), tasks_table(tasks)}, options.tables),
               options.format, "the same command with --table {} --format csv");
  return kExitDone;
}

}  // namespace

void add_plan(CommandLine& command_line) {
  const auto options = std::make_shared<PlanOptions>();
  Subcommand command = command_line.add(
      "plan", "Print a sweep's cells, which are finished, and their distribution over tasks",
      "Two tables: sweep (one row per folder of the results) and tasks (one row per task I, the\n"
      "work of `run --shard I/N`). over_mean is a task's share of the operations over the mean;\n"
      "seconds_to_do is estimated from the times of finished cells, for one cell at a time, and\n"
      "empty without any. Writes nothing; --device cuda needs no GPU here.\n"
      "Example: vla-bench plan configs/sweep.json --tasks 4",
      [options] { return plan(*options); });
  declare_sweep_options(command, options->sweep);
  command.option("--tasks", options->tasks, {"N", "Tasks to deal to (default 1)"}, {1, kMostTasks});
  command.choice("--format", options->format, {"markdown", "csv", "json"}, "(default markdown)");
  command.option("--table", options->tables, {"NAME", "Only this table (repeatable)"});
}

}  // namespace vla_bench::cli
