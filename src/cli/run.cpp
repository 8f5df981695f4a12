// vla-bench run: runs a config's cells on the available workers.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "cli/progress.h"
#include "cli/stop_signal.h"
#include "cli/sweep_options.h"
#include "cli/write_report.h"
#include "core/error.h"
#include "core/files.h"
#include "experiments/cost.h"
#include "experiments/experiment.h"
#include "experiments/list.h"
#include "experiments/record.h"
#include "report/grouping.h"
#include "report/provenance.h"
#include "runs/cell_state.h"
#include "runs/find.h"
#include "runs/pack.h"
#include "runs/plan.h"
#include "runs/sweep_note.h"
#include "runs/worker_pool.h"

namespace vla_bench::cli {
namespace {

/// Longer raw tables are not printed; their summaries always are.
constexpr std::size_t kMostRowsPrinted = 80;

struct RunOptions {
  SweepOptions sweep;
  std::optional<Index> threads;
  Index jobs = 0;  // 0: automatic
  std::string shard = "0/1";
  bool force = false;
  bool dry_run = false;
  bool quiet = false;
  bool verbose = false;
};

/// Runs a cell on the calling worker's device. A GPU that is not available, or is lost during the
/// cell, fails the cell.
CellResult run_on(const Slot& slot, const PlannedCell& planned,
                  const CellEnvironment& environment) {
  try {
    if (slot.gpu >= 0) cuda_select_device(slot.gpu);
  } catch (const RunError& error) {
    return unmeasured(planned.cell, environment, CellStatus::failed, error.what());
  }
  return run_cell(planned.cell, environment);
}

/// A number of the row of a training; nothing of other tables.
std::optional<double> trained(const CellResult& result, const Column& column) {
  const Table& table = result.table;
  if (table.name != Training::table().name || table.rows.empty()) return std::nullopt;
  return number(table.rows.front()[table.column(column)]);
}

/// Seconds of a cell: of this run, or of a training's steps in all resumed runs.
double seconds_of(const CellResult& result, std::chrono::steady_clock::duration sitting) {
  const double seconds = std::chrono::duration<double>(sitting).count();
  return std::max(seconds, trained(result, Columns::train_seconds).value_or(0.0));
}

/// `workers` run concurrently, this one included. `anew`: from step 0, ignoring earlier files.
CellResult run_planned(const PlannedCell& planned, const Slot& slot, std::size_t workers, bool anew,
                       Progress& progress) {
  const RunConfig& config = planned.cell.config;
  const CellFolder& folder = planned.folder;
  const Context context{.device = slot.gpu >= 0 ? Device::cuda : Device::cpu,
                        .threads = threads_per_worker(resolve_threads(config.threads), workers),
                        .precision = config.precision};
  progress.log(
      log_debug,
      fmt::format("{}: {}{}, {} threads", folder.path.string(), device_name(context.device),
                  slot.gpu >= 0 ? fmt::format(" {}", slot.gpu) : "", context.threads));
  folder.begin(config);
  if (anew) folder.discard();
  const CellEnvironment environment{
      .context = context,
      .checkpoint = folder.checkpoint(),
      .progress = [&](const TrainProgress& now) { progress.update(slot.worker, now); },
      .stop = &stop_requested()};
  const auto start = std::chrono::steady_clock::now();
  CellResult result = run_on(slot, planned, environment);
  const double seconds = seconds_of(result, std::chrono::steady_clock::now() - start);
  if (result.status == CellStatus::interrupted) return result;
  folder.seal({.config = config,
               .hash = planned.cell.hash,
               .outcome = {.status = std::string(status_name(result.status)),
                           .reason = result.reason,
                           .seconds = seconds},
               .provenance = Provenance(provenance(context.threads, static_cast<int>(workers))),
               .tables = {result.table},
               .history = result.history});
  return result;
}

std::string describe(const CellResult& result) {
  std::string text(status_name(result.status));
  const bool logged_apart = result.status == CellStatus::failed;
  if (!result.reason.empty() && !logged_apart) text += ": " + result.reason;
  if (const auto accuracy = trained(result, Columns::accuracy)) {
    text += fmt::format(", accuracy {:.4f}", *accuracy);
  }
  return text;
}

/// The sealed cells of `plan`, from folders and packs below `root`.
FoundCells find_planned(const std::vector<PlannedCell>& plan, const std::filesystem::path& root) {
  std::set<std::filesystem::path> places;
  std::set<std::string> hashes;
  for (const PlannedCell& planned : plan) {
    const std::filesystem::path run = planned.folder.path.parent_path();
    if (std::filesystem::is_directory(run)) places.insert(run);
    hashes.insert(planned.cell.hash);
  }
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (is_pack_name(entry.path())) places.insert(entry.path());
  }
  return only_cells(find_cells({places.begin(), places.end()}),
                    [&](const CellRecord& record) { return hashes.contains(record.hash); });
}

void print_raw_and_summaries(const FoundCells& found, const std::filesystem::path& root) {
  std::vector<Table> shown;
  for (Table& table : report_tables(found, {})) {
    const bool raw = find_schema(table.name) != nullptr || table.name.ends_with("_curve");
    if (raw && table.rows.size() > kMostRowsPrinted) {
      log_info(fmt::format("{}: {} rows, not printed (vla-bench report prints or writes them)",
                           table.name, table.rows.size()));
      continue;
    }
    shown.push_back(std::move(table));
  }
  std::set<std::string> folders;  // a sweep can have several; packs are in the root itself
  for (const CellRecord& record : found.records) {
    const std::filesystem::path run = root / record.run;
    folders.insert((std::filesystem::is_directory(run) ? run : root).string());
  }
  std::vector<std::string> words = {"vla-bench", "report"};
  words.insert(words.end(), folders.begin(), folders.end());
  print_tables(shown, "markdown", shell_words(words) + " --table {} --format csv");
}

/// When all cells of the config are sealed: its tables, by name.
void write_complete(const std::vector<PlannedCell>& whole, const FoundCells& found,
                    const std::filesystem::path& root) {
  std::set<std::string> sealed;
  for (const CellRecord& record : found.records) sealed.insert(record.hash);
  std::map<std::string, std::set<std::string>> names;
  for (const PlannedCell& planned : whole) {
    if (!sealed.contains(planned.cell.hash)) return;
    names[planned.cell.config.name].insert(planned.cell.hash);
  }
  for (const auto& [name, hashes] : names) {
    write_report(
        only_cells(found, [&, &own = hashes](
                              const CellRecord& record) { return own.contains(record.hash); }),
        {.out = root / name / "tables"});
  }
}

/// Whether the worker's GPU still answers after a cell failed on it.
bool answers(const Slot& slot) {
  if (slot.gpu < 0) return true;
  try {
    device_wait(Device::cuda);
    return true;
  } catch (const RunError&) {
    return false;
  }
}

/// Indices of the plan's cells that have to be run. Warns of damaged ones, which are repeated.
std::vector<std::size_t> unfinished(const std::vector<CellState>& states, bool force) {
  std::vector<std::size_t> cells;
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (states[i].stage == CellStage::damaged) {
      log_warning(fmt::format("{}; this cell is done again", states[i].reason));
    }
    if (force || states[i].stage != CellStage::done) cells.push_back(i);
  }
  return cells;
}

/// Whether another process has finished the cell in the meantime.
bool finished_since(const PlannedCell& planned) {
  const auto sealed = look_up(planned.folder);
  return sealed && sealed->damage.empty() && sealed->head.outcome.status != "failed";
}

/// cell, title, hash, finished: the table of --dry-run.
Table plan_table(const std::vector<PlannedCell>& plan, const std::vector<CellState>& states) {
  Table table;
  table.name = "plan";
  table.columns = {"cell", "title", "hash", "finished"};
  for (std::size_t i = 0; i < plan.size(); ++i) {
    table.add({static_cast<std::int64_t>(i + 1), plan[i].cell.title, plan[i].cell.hash,
               std::string(states[i].stage == CellStage::done ? "yes" : "no")});
  }
  return table;
}

std::vector<RunConfig> configs_of(const std::vector<PlannedCell>& plan,
                                  const std::vector<std::size_t>& cells) {
  std::vector<RunConfig> configs;
  for (const std::size_t index : cells) configs.push_back(plan[index].cell.config);
  return configs;
}

std::vector<CellConfig> cells_of(const std::vector<PlannedCell>& plan) {
  std::vector<CellConfig> cells;
  for (const PlannedCell& planned : plan) cells.push_back(planned.cell);
  return cells;
}

struct Tally {
  std::atomic<Index> failed{0};
  std::atomic<Index> skipped{0};  // finished by another process meanwhile
};

/// Runs the cells of `todo`, as many at a time as there are slots.
void run_cells(const RunOptions& options, const std::vector<PlannedCell>& plan,
               const std::vector<std::size_t>& todo, const std::vector<Slot>& slots, Tally& tally) {
  Progress progress(static_cast<Index>(plan.size()), static_cast<Index>(plan.size() - todo.size()),
                    static_cast<int>(slots.size()), options.quiet);
  const auto body = [&](const Slot& slot, Index item) {
    const std::size_t index = todo[static_cast<std::size_t>(item)];
    const PlannedCell& planned = plan[index];
    if (!options.force && finished_since(planned)) {
      ++tally.skipped;
      progress.skip_cell();
      return true;
    }
    progress.begin_cell(slot.worker, static_cast<Index>(index) + 1, planned.cell.title);
    const CellResult result = run_planned(planned, slot, slots.size(), options.force, progress);
    progress.end_cell(slot.worker, describe(result));
    if (!result.warning.empty()) {
      progress.log(log_warning, fmt::format("{}: {}", planned.cell.title, result.warning));
    }
    if (result.status != CellStatus::failed) return true;
    ++tally.failed;
    progress.log(log_error, fmt::format("{}: {}", planned.cell.title, result.reason));
    return answers(slot);
  };
  run_workers(slots, static_cast<Index>(todo.size()), stop_requested(), body);
}

/// The experiment that determines the number of workers, since a sweep can have several
/// experiments.
ExperimentKind ruling_experiment(const RunConfig& config, const std::vector<PlannedCell>& plan) {
  for (const PlannedCell& planned : plan) {
    if (is_timed(planned.cell.config.experiment)) return planned.cell.config.experiment;
  }
  return plan.empty() ? config.experiment : plan.front().cell.config.experiment;
}

int run(const RunOptions& options) {
  if (options.quiet && options.verbose) {
    throw BadInput("--quiet and --verbose exclude each other: give one of them");
  }
  if (options.quiet || options.verbose) {
    configure_log(options.quiet ? Verbosity::quiet : Verbosity::verbose);
  }
  // Handles signals from here on: the plan of a large sweep takes seconds, and a task that is
  // stopped meanwhile must be started again like any other.
  install_stop_handlers();
  std::vector<std::string> threads;
  if (options.threads) threads.push_back(fmt::format("threads={}", *options.threads));
  const RunConfig config = read_sweep(options.sweep, threads);
  const Device device = resolve_device(config.device);
  const Shard shard = parse_shard(options.shard);
  const auto whole = plan_cells(config, device, options.sweep.out, shard.count);
  const auto plan = only_shard(whole, shard.index);
  const PackIndex packs(options.sweep.out);
  for (const std::string& problem : packs.problems()) log_warning(problem);
  const std::vector<CellState> states = cell_states(plan, packs);
  std::vector<std::size_t> todo = unfinished(states, options.force);
  const std::vector<Slot> slots =
      assign_slots({.experiment = ruling_experiment(config, plan),
                    .device = device,
                    .gpus = device == Device::cuda ? cuda_device_count() : 0,
                    .items = static_cast<Index>(todo.size()),
                    .jobs = options.jobs});
  log_info(
      "to run: " +
      describe(estimate(configs_of(plan, todo), device, resolve_threads(config.threads)), device));
  if (options.dry_run) {
    print(table_text(plan_table(plan, states), ""));
    return kExitDone;
  }
  require_writable_folder(options.sweep.out);
  note_sweep(config, device, options.sweep.out, cells_of(whole));
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (states[i].stage == CellStage::done) plan[i].folder.tidy();
  }

  Tally tally;
  if (slots.size() > 1) {  // so that workers end together
    std::vector<Index> flop;
    for (const PlannedCell& planned : plan) flop.push_back(planned.flop);
    sort_longest_first(flop, todo);
  }
  run_cells(options, plan, todo, slots, tally);
  if (stop_requested().load()) {
    log_warning("stopped by a signal; the same command goes on from here");
    return stop_exit_code();
  }
  const Index skipped = static_cast<Index>(plan.size() - todo.size()) + tally.skipped;
  if (skipped > 0) log_info(fmt::format("{} cells were finished already", skipped));
  const Index failed = tally.failed;
  if (failed > 0) log_error(fmt::format("{} of {} cells failed", failed, plan.size()));
  const FoundCells found = find_planned(whole, options.sweep.out);
  for (const std::string& problem : found.problems) log_warning(problem);
  std::set<std::string> hashes;
  for (const PlannedCell& planned : plan) hashes.insert(planned.cell.hash);
  print_raw_and_summaries(
      only_cells(found, [&](const CellRecord& record) { return hashes.contains(record.hash); }),
      options.sweep.out);
  write_complete(whole, found, options.sweep.out);
  log_info(fmt::format("the cells' files lie below {}", options.sweep.out));
  return failed > 0 ? kExitFailedRun : kExitDone;
}

}  // namespace

void add_run(CommandLine& command_line) {
  const auto options = std::make_shared<RunOptions>();
  Subcommand command = command_line.add(
      "run", "Run every cell of a config (mixer x sweep point x seed) and print its tables",
      "A cell is a folder OUT/NAME/HASH, finished when it has a record.json, or a line of a pack\n"
      "OUT/*.jsonl; finished cells are skipped, killed trainings resume from their checkpoint,\n"
      "failed cells and damaged records are repeated. The run that completes the config writes\n"
      "its tables to OUT/NAME/tables. SIGINT and SIGTERM write checkpoints and exit with 130 and\n"
      "75. Exit code 1 when a cell failed.\n"
      "Example: vla-bench run configs/mqar.json --set task.n_pairs=8 --seed 1 --shard 0/4",
      [options] { return run(*options); });
  declare_sweep_options(command, options->sweep);
  command.option("--threads", options->threads,
                 {"N", "CPU threads; 0: OMP_NUM_THREADS, or as many as the process may use"},
                 {0, kMostThreads});
  command.option("--jobs", options->jobs,
                 {"N",
                  "Cells to run at a time, spread over the GPUs or sharing the CPU's threads; 0 "
                  "(default): 1 on a CPU; per GPU 4 of training, 1 of latency"});
  command.option(
      "--shard", options->shard,
      {"I/N",
       "Run part I of N, I from 0 to N - 1: cells are dealt longest first (see vla-bench "
       "plan); shards may share DIR"});
  command.flag("--force", options->force, "Run finished cells again, from the start");
  command.flag("--dry-run", options->dry_run, "Print the cells and run nothing");
  command.flag("--quiet", options->quiet, "No progress; only warnings and tables");
  command.flag("--verbose", options->verbose, "Also log the folder and device of each cell");
}

}  // namespace vla_bench::cli
