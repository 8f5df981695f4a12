// vla-bench run: a config's cells, one after the other.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/failed_cells.h"
#include "cli/output.h"
#include "cli/plan.h"
#include "cli/progress.h"
#include "cli/stop_signal.h"
#include "core/error.h"
#include "core/files.h"
#include "experiments/experiment.h"
#include "report/provenance.h"
#include "report/summary.h"

namespace vla_bench::cli {
namespace {

/// Longer raw tables are left in their files; what is made of them is always printed.
constexpr std::size_t kMostRowsPrinted = 80;

struct RunOptions {
  std::string config;
  std::vector<std::string> overrides;
  std::string out = "results/runs";
  std::string device;  // empty: the config's
  std::optional<Index> threads;
  std::optional<Index> seed;
  std::string shard = "0/1";
  bool force = false;
  bool dry_run = false;
  bool quiet = false;
  bool verbose = false;
};

/// Flags are overrides of their config keys: read, checked and recorded the same way.
RunConfig read_run_config(const RunOptions& options) {
  std::vector<std::string> overrides = options.overrides;
  if (!options.device.empty()) overrides.push_back(fmt::format("device=\"{}\"", options.device));
  if (options.threads) overrides.push_back(fmt::format("threads={}", *options.threads));
  if (options.seed) overrides.push_back(fmt::format("seeds=[{}]", *options.seed));
  return read_config(options.config, overrides);
}

/// A cell's old table goes first: were the process killed halfway, the cell counts as unfinished.
void forget(const PlannedCell& planned) {
  const RunDirectory& directory = planned.directory;
  std::error_code ignored;
  std::filesystem::remove(directory.folder / fmt::format("{}.csv", planned.schema->name), ignored);
  std::filesystem::remove(directory.checkpoint(), ignored);
}

CellResult run_planned(const PlannedCell& planned, Progress& progress) {
  const RunConfig& config = planned.cell.config;
  const Context context = make_context(std::string(enum_name(config.device)), config.threads);
  const RunDirectory& directory = planned.directory;
  log_debug(fmt::format("{}: {}, {} threads", directory.folder.string(),
                        device_name(context.device), context.threads));
  directory.write_config(dump_config(config));
  directory.write_provenance(provenance_json(context.threads));
  CellResult result =
      run_cell(planned.cell, {.context = context,
                              .directory = &directory,
                              .progress = [&](const TrainProgress& now) { progress.update(now); },
                              .stop = &stop_requested()});
  if (result.status == CellStatus::interrupted) return result;
  if (!result.history.rows.empty()) directory.write_history(result.history);
  const CellOutcome outcome{.status = std::string(status_name(result.status)),
                            .reason = result.reason};
  if (result.status == CellStatus::failed) {
    write_failed(directory, result.table, outcome);
  } else {
    directory.publish(result.table, outcome);
    clear_failed(directory, result.table.name);
  }
  return result;
}

std::string describe(const CellResult& result) {
  std::string text(status_name(result.status));
  const bool logged_apart = result.status == CellStatus::failed;
  if (!result.reason.empty() && !logged_apart) text += ": " + result.reason;
  if (result.table.name == accuracy_schema().name && result.table.rows.size() == 1) {
    const Value& accuracy = result.table.rows[0][result.table.column("accuracy")];
    if (const double* value = std::get_if<double>(&accuracy)) {
      text += fmt::format(", accuracy {:.4f}", *value);
    }
  }
  return text;
}

void print_tables(const std::vector<PlannedCell>& plan) {
  std::vector<FinishedCell> cells;
  for (const PlannedCell& planned : plan) {
    const auto& folder = planned.directory.folder;
    for (auto* find : {&find_finished_cells, &find_failed_cells}) {
      for (FinishedCell& cell : find(folder)) cells.push_back(std::move(cell));
    }
  }
  for (const Table& table : gather_tables(cells)) {
    const bool raw = find_schema(table.name) != nullptr;
    if (raw && table.rows.size() > kMostRowsPrinted) {
      log_info(fmt::format("{}: {} rows, not printed (vla-bench report prints or writes them)",
                           table.name, table.rows.size()));
      continue;
    }
    print(fmt::format("## {}\n\n{}\n", table.name, to_markdown(table)));
  }
}

int run(const RunOptions& options) {
  if (options.quiet && options.verbose) {
    throw BadInput("--quiet and --verbose exclude each other: give one of them");
  }
  if (options.quiet || options.verbose) {
    configure_log(options.quiet ? Verbosity::quiet : Verbosity::verbose);
  }
  const RunConfig config = read_run_config(options);
  const Device device = resolve_device(config.device);
  const auto plan = plan_cells(config, device, options.out, parse_shard(options.shard));
  if (options.dry_run) {
    print(to_markdown(plan_table(plan)));
    return kExitDone;
  }
  require_writable_folder(options.out);

  install_stop_handlers();
  Progress progress(static_cast<Index>(plan.size()), options.quiet);
  Index skipped = 0, failed = 0, position = 0;
  for (const PlannedCell& planned : plan) {
    ++position;
    if (planned.finished() && !options.force) {
      ++skipped;
      continue;
    }
    if (options.force) forget(planned);
    progress.begin_cell(position, planned.cell.title);
    const CellResult result = run_planned(planned, progress);
    progress.end_cell(describe(result));
    if (!result.warning.empty()) {
      log_warning(fmt::format("{}: {}", planned.cell.title, result.warning));
    }
    if (result.status == CellStatus::failed) {
      ++failed;
      log_error(fmt::format("{}: {}", planned.cell.title, result.reason));
    }
    if (stop_requested().load()) {
      log_warning("stopped by a signal; the same command goes on from here");
      return stop_exit_code();
    }
  }
  if (skipped > 0) log_info(fmt::format("{} cells were finished already", skipped));
  print_tables(plan);
  log_info(fmt::format("the cells' files lie below {}", options.out));
  if (failed > 0) log_error(fmt::format("{} of {} cells failed", failed, plan.size()));
  return failed > 0 ? kExitFailedRun : kExitDone;
}

}  // namespace

void add_run(CommandLine& command_line) {
  const auto options = std::make_shared<RunOptions>();
  Subcommand command = command_line.add(
      "run", "Run every cell of a config (mixer x sweep point x seed) and print its tables",
      "A cell is a folder OUT/NAME/HASH; finished cells are skipped, killed trainings go on from\n"
      "their checkpoint, failed cells are tried again. SIGINT and SIGTERM checkpoint the training\n"
      "and exit with 130 and 75. Exit code 1 when a cell failed.\n"
      "Example: vla-bench run configs/mqar.json --set task.n_pairs=8 --seed 1 --shard 0/4",
      [options] { return run(*options); });
  command.positional(options->config, {"CONFIG", "JSON config (see vla-bench schema)"});
  command.option("--set", options->overrides,
                 {"key.path=JSON", "Override a key of the config (repeatable)"});
  command.option("--out", options->out, {"DIR", "Root of the results (default results/runs)"});
  command.choice("--device", options->device, {"auto", "cpu", "cuda"},
                 "Where to run (default: the config's)");
  command.option("--threads", options->threads, {"N", "CPU threads; 0: all cores"},
                 {0, kMostThreads});
  command.option("--seed", options->seed, {"N", "Run this seed instead of the config's seeds"});
  command.option(
      "--shard", options->shard,
      {"I/N", "Run every N-th cell from cell I, I from 0 to N - 1; shards may share DIR"});
  command.flag("--force", options->force, "Run finished cells again, from the start");
  command.flag("--dry-run", options->dry_run, "Print the cells and run nothing");
  command.flag("--quiet", options->quiet, "No progress; warnings and tables alone");
  command.flag("--verbose", options->verbose, "Also log where each cell lies and runs");
}

}  // namespace vla_bench::cli
