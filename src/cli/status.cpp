// vla-bench status: the progress of the sweeps in a results folder.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "cli/progress.h"
#include "cli/stop_signal.h"
#include "core/error.h"
#include "runs/cell_state.h"
#include "runs/sweep_cells.h"

namespace vla_bench::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::seconds kBetweenLooks{5};  // --watch must not load a shared folder
constexpr std::size_t kMostCellsPrinted = 20;     // per stage; --json has all

struct StatusOptions {
  std::string folder;
  bool json = false;
  bool watch = false;
};

struct Seen {
  const PlannedCell* planned;
  CellState state;
};

/// One results folder <root>/<name>.
struct FolderStatus {
  std::string folder;
  std::map<CellStage, std::int64_t> counts;
  double flop = 0.0, flop_done = 0.0;
  double cell_seconds_left = 0.0;
  bool timed = true;                  // every remaining cell has an estimate
  std::vector<Seen> listed;           // begun, failed and damaged
  std::vector<std::string> problems;  // files that could not be read

  std::int64_t cells() const {
    std::int64_t sum = 0;
    for (const auto& [stage, count] : counts) sum += count;
    return sum;
  }
  std::int64_t count(CellStage stage) const {
    const auto found = counts.find(stage);
    return found == counts.end() ? 0 : found->second;
  }
  /// The finished fraction of operations, not of cells, since the last cells can be the longest.
  double percent() const { return flop > 0.0 ? 100.0 * flop_done / flop : 0.0; }
  /// Assumes as many concurrent cells as are begun now.
  std::optional<double> seconds_left() const {
    if (!timed) return std::nullopt;
    const auto beside = static_cast<double>(std::max<std::int64_t>(1, count(CellStage::begun)));
    return cell_seconds_left / beside;
  }
};

FolderStatus look(const std::filesystem::path& folder, const SweepCells& sweep,
                  const PackIndex& packs) {
  FolderStatus status{.folder = folder.string(), .problems = sweep.problems};
  const std::vector<PlannedCell>& cells = sweep.cells;
  const std::vector<CellState> states = cell_states(cells, packs);
  Pace pace;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (states[i].seconds) pace.add(cells[i], *states[i].seconds);
    if (states[i].stage == CellStage::damaged) status.problems.push_back(states[i].reason);
  }
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const CellStage stage = states[i].stage;
    ++status.counts[stage];
    const double part = fraction_done(cells[i], states[i]);
    status.flop += static_cast<double>(cells[i].flop);
    status.flop_done += part * static_cast<double>(cells[i].flop);
    if (stage == CellStage::done) continue;
    const auto seconds = pace.seconds(cells[i]);
    if (seconds) status.cell_seconds_left += (1.0 - part) * *seconds;
    status.timed = status.timed && seconds.has_value();
    if (stage != CellStage::to_do) status.listed.push_back({&cells[i], states[i]});
  }
  return status;
}

Json to_json(const FolderStatus& status) {
  Json begun = Json::array(), failed = Json::array(), damaged = Json::array();
  for (const Seen& seen : status.listed) {
    Json cell = {{"hash", seen.planned->cell.hash}, {"title", seen.planned->cell.title}};
    if (seen.state.stage != CellStage::begun) {
      cell["reason"] = seen.state.reason;
      (seen.state.stage == CellStage::failed ? failed : damaged).push_back(std::move(cell));
      continue;
    }
    const auto& age = seen.state.seconds_ago;
    cell["step"] = age ? Json(seen.state.step) : Json();
    cell["checkpoint_age_s"] = age ? Json(*age) : Json();
    begun.push_back(std::move(cell));
  }
  const auto left = status.seconds_left();
  return {{"folder", status.folder},
          {"cells", status.cells()},
          {"done", status.count(CellStage::done)},
          {"begun", status.count(CellStage::begun)},
          {"failed", status.count(CellStage::failed)},
          {"damaged", status.count(CellStage::damaged)},
          {"to_do", status.count(CellStage::to_do)},
          {"percent", status.percent()},
          {"cell_seconds_left", left ? Json(status.cell_seconds_left) : Json()},
          {"seconds_left", left ? Json(*left) : Json()},
          {"begun_cells", std::move(begun)},
          {"failed_cells", std::move(failed)},
          {"damaged_cells", std::move(damaged)},
          {"problems", status.problems}};
}

Table summary_table(const std::vector<FolderStatus>& folders) {
  Table table;
  table.columns = {"folder",  "cells", "done",    "begun", "failed",
                   "damaged", "to_do", "percent", "left"};
  for (const FolderStatus& status : folders) {
    const auto left = status.seconds_left();
    table.add({status.folder, status.cells(), status.count(CellStage::done),
               status.count(CellStage::begun), status.count(CellStage::failed),
               status.count(CellStage::damaged), status.count(CellStage::to_do), status.percent(),
               left ? format_duration(*left) : std::string("?")});
  }
  return table;
}

/// The cells of one stage as text; empty without any.
std::string listing(const std::vector<FolderStatus>& folders, CellStage stage) {
  Table table;
  const bool begun = stage == CellStage::begun;
  table.columns = begun ? std::vector<std::string>{"begun", "last step", "checkpoint"}
                        : std::vector<std::string>{"failed", "reason"};
  std::size_t unprinted = 0;
  for (const FolderStatus& status : folders) {
    for (const Seen& seen : status.listed) {
      if (seen.state.stage != stage) continue;
      if (table.rows.size() == kMostCellsPrinted) {
        ++unprinted;
        continue;
      }
      const std::string& title = seen.planned->cell.title;
      const auto& age = seen.state.seconds_ago;
      if (!begun) {
        table.add({title, seen.state.reason});
      } else if (age) {
        table.add({title, seen.state.step, format_duration(*age) + " ago"});
      } else {
        table.add({title, Value(), std::string("none yet")});
      }
    }
  }
  if (table.rows.empty()) return {};
  std::string text = fmt::format("\n{}", table_text(table, "--json"));
  if (unprinted > 0) text += fmt::format("and {} more\n", unprinted);
  return text;
}

struct Look {
  std::string text;
  bool over = false;  // nothing is begun or to be done
  std::set<std::string> problems{};
};

Look look_once(const StatusOptions& options) {
  std::map<std::filesystem::path, PackIndex> packs;
  const auto runs = find_sweep_cells(options.folder, packs);
  std::vector<FolderStatus> folders;
  Look result{.over = true};
  for (const auto& [root, index] : packs) {
    result.problems.insert(index.problems().begin(), index.problems().end());
  }
  for (const auto& [run, sweep] : runs) {
    folders.push_back(look(run, sweep, packs.at(run.parent_path())));
    result.problems.insert(folders.back().problems.begin(), folders.back().problems.end());
    result.over = result.over && folders.back().count(CellStage::begun) == 0 &&
                  folders.back().count(CellStage::to_do) == 0;
  }
  if (options.json) {
    Json document = Json::array();
    for (const FolderStatus& status : folders) document.push_back(to_json(status));
    // One line each time. A reason may quote bytes that are not UTF-8.
    const int indent = options.watch ? -1 : 2;
    result.text = document.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n";
  } else {
    result.text = table_text(summary_table(folders), "--json") +
                  listing(folders, CellStage::begun) + listing(folders, CellStage::failed) +
                  listing(folders, CellStage::damaged);
  }
  return result;
}

int status(const StatusOptions& options) {
  if (!options.watch) {
    const Look seen = look_once(options);
    print(seen.text);
    for (const std::string& problem : seen.problems) log_error(problem);
    return seen.problems.empty() ? kExitDone : kExitFailedRun;
  }
  install_stop_handlers();
  const bool redraw = !options.json && isatty(STDOUT_FILENO) == 1;
  for (;;) {
    const Look seen = look_once(options);
    // Clears a terminal each time; elsewhere appends.
    print(redraw ? "\x1b[H\x1b[2J" + seen.text : seen.text + (options.json ? "" : "\n"));
    if (seen.over) return seen.problems.empty() ? kExitDone : kExitFailedRun;
    const auto next = std::chrono::steady_clock::now() + kBetweenLooks;
    while (std::chrono::steady_clock::now() < next) {
      if (stop_requested().load()) return stop_exit_code();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
}

}  // namespace

void add_status(CommandLine& command_line) {
  const auto options = std::make_shared<StatusOptions>();
  Subcommand command = command_line.add(
      "status", "Print the progress of the sweeps in a results folder",
      "done: it has a record, in a folder or a pack. begun: being computed, or its process was\n"
      "killed; with the step and the age of its checkpoint. failed: with the reason; the next run\n"
      "repeats it. damaged: its record is truncated or edited; the next run repeats it, and the\n"
      "exit code is 1. to_do: of the config that was last run there. percent counts operations.\n"
      "left is an estimate from the times of finished cells, with as many cells at a time as are\n"
      "begun now.\n"
      "Example: vla-bench status results/runs --watch",
      [options] { return status(*options); });
  command.positional(options->folder,
                     {"DIR", "Results folder (DIR/NAME/HASH or NAME/HASH), or a pack"});
  command.flag("--json", options->json, "As JSON; with --watch one line each time");
  command.flag("--watch", options->watch,
               "Update every 5 seconds until no cell is begun or to be done");
}

}  // namespace vla_bench::cli
