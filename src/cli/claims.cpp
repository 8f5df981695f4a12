// vla-bench claims: the published claims, held against finished runs.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "claims/ledger.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "core/error.h"
#include "core/files.h"

namespace vla_bench::cli {
namespace {

constexpr const char* kDefaultFolder = "results";

struct ClaimsOptions {
  std::vector<std::string> folders;
  std::string experiments = "experiments";
  std::string format = "markdown";
  std::string out;
};

/// Without any cell the ledger still says what is missing.
std::vector<FinishedCell> find_cells(std::vector<std::string> folders) {
  const bool given = !folders.empty();
  if (!given) folders = {kDefaultFolder};
  std::vector<FinishedCell> cells;
  std::set<std::filesystem::path> seen;  // folders may overlap
  for (const std::string& folder : folders) {
    if (!given && !std::filesystem::is_directory(folder)) continue;
    for (FinishedCell& cell : find_finished_cells(folder)) {
      const auto place = std::filesystem::weakly_canonical(cell.directory.folder);
      if (seen.insert(place).second) cells.push_back(std::move(cell));
    }
  }
  return cells;
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
  const std::vector<Claim> claims = read_claims(options.experiments);
  const CellIndex cells(find_cells(options.folders));
  std::vector<Assessment> assessments;
  for (const Claim& claim : claims) assessments.push_back(assess(claim, cells));
  const std::vector<Table> tables = {ledger_table(assessments), criteria_table(assessments)};
  if (options.out.empty()) {
    print_tables(tables, options.format);
  } else {
    write_tables(tables, options.out);
  }
  const auto open = std::count_if(
      assessments.begin(), assessments.end(),
      [](const Assessment& assessment) { return assessment.verdict == Verdict::no_run; });
  if (open == 0) return kExitDone;
  log_warning(fmt::format("{} of {} claims lack a finished run", open, claims.size()));
  return kExitFailedRun;
}

}  // namespace

void add_claims(CommandLine& command_line) {
  const auto options = std::make_shared<ClaimsOptions>();
  Subcommand command = command_line.add(
      "claims", "Hold the published claims against finished runs and print the ledger",
      "Each folder of EXPERIMENTS holds configs and expected.json: what was published, which "
      "number\n"
      "of which table decides, and the bounds. A claim has a verdict once every cell of its "
      "configs\n"
      "is finished below the DIRs, all on one device. Prints two tables, ledger and criteria; "
      "with\n"
      "--out they become CSV, Markdown and JSON files.\n"
      "Exit code 1 when a claim lacks its run.\n"
      "Example: vla-bench claims results/runs --format json",
      [options] { return claims(*options); });
  command.optional_positional(options->folders,
                              {"DIR", "Results folders, searched through (default results)"});
  command.option("--experiments", options->experiments,
                 {"DIR", "Folder of the experiments (default experiments)"});
  command.choice("--format", options->format, {"markdown", "csv", "json"},
                 "Of standard output (default markdown)");
  command.option("--out", options->out, {"DIR", "Write the tables into this folder instead"});
}

}  // namespace vla_bench::cli
