// vla-bench claims: compares the published claims with finished runs.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "claims/ledger.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/installed_files.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "core/error.h"
#include "core/files.h"
#include "runs/find.h"

namespace vla_bench::cli {
namespace {

constexpr const char* kDefaultFolder = "results/runs";

struct ClaimsOptions {
  std::vector<std::string> folders;
  std::string experiments = "experiments";
  std::string format = "markdown";
  std::string out;
};

/// Without any cell the ledger still lists what is missing.
FoundCells read_cells(const std::vector<std::string>& folders) {
  if (!folders.empty()) return find_cells({folders.begin(), folders.end()});
  if (!std::filesystem::is_directory(kDefaultFolder)) return {};
  return find_cells({kDefaultFolder});
}

void write_tables(const std::vector<Table>& tables, const std::filesystem::path& out) {
  require_writable_folder(out);
  for (const Table& table : tables) {
    write_file_atomically(out / (table.name + ".csv"), to_csv(table));
    write_file_atomically(out / (table.name + ".md"), to_markdown(table));
    write_file_atomically(out / (table.name + ".json"), to_json(table));
  }
}

int claims(const ClaimsOptions& options) {
  const std::vector<Claim> claims = read_claims(find_input(options.experiments));
  FoundCells found = read_cells(options.folders);
  for (const std::string& problem : found.problems) log_error(problem);
  const bool nothing_run = found.records.empty();
  const bool problems = !found.problems.empty();
  const CellIndex cells(std::move(found.records));
  std::vector<Assessment> assessments;
  for (const Claim& claim : claims) assessments.push_back(assess(claim, cells));
  const std::vector<Table> tables = {ledger_table(assessments), criteria_table(assessments)};
  if (options.out.empty()) {
    print_tables(tables, options.format, "the same command with --format csv or --out DIR");
  } else {
    write_tables(tables, options.out);
  }
  const auto open = std::count_if(
      assessments.begin(), assessments.end(),
      [](const Assessment& assessment) { return assessment.verdict == Verdict::no_run; });
  if (nothing_run) {
    log_warning(fmt::format("no finished cell in {}; for a first verdict: vla-bench run {}",
                            options.folders.empty()
                                ? kDefaultFolder
                                : fmt::format("{}", fmt::join(options.folders, ", ")),
                            "experiments/01_state_norm/config.json && vla-bench claims"));
    return kExitFailedRun;
  }
  if (open == 0) return problems ? kExitFailedRun : kExitDone;
  log_warning(fmt::format("{} of {} claims lack a finished run", open, claims.size()));
  return kExitFailedRun;
}

}  // namespace

void add_claims(CommandLine& command_line) {
  const auto options = std::make_shared<ClaimsOptions>();
  Subcommand command = command_line.add(
      "claims", "Compare the published claims with finished runs and print the ledger",
      "Each folder of EXPERIMENTS has configs and expected.json: the published figure, the\n"
      "number of a table that decides, and its bounds. A claim has a verdict once every cell of\n"
      "its configs is finished below the DIRs, all on one device. Prints two tables, ledger and\n"
      "criteria; with --out they become CSV, Markdown and JSON files.\n"
      "The committed reference counts only when it is named: results/reference/h200.\n"
      "Exit code 1 when a claim lacks its run, or a record is damaged.\n"
      "Example: vla-bench claims results/runs --format json",
      [options] { return claims(*options); });
  command.optional_positional(
      options->folders,
      {"DIR", "Results folders, searched through, or packs (default results/runs)"});
  command.option("--experiments", options->experiments,
                 {"DIR", "Folder of the experiments (default experiments)"});
  command.choice("--format", options->format, {"markdown", "csv", "json"},
                 "Of standard output (default markdown)");
  command.option("--out", options->out, {"DIR", "Write the tables into this folder instead"});
}

}  // namespace vla_bench::cli
