// vla-bench report: gathers finished cells into the tables of a paper.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "cli/write_report.h"
#include "core/error.h"
#include "report/grouping.h"

namespace vla_bench::cli {
namespace {

struct ReportOptions {
  std::vector<std::string> folders;
  std::string format = "markdown";
  std::string out;
  std::vector<std::string> names;  // empty: all
  std::vector<std::string> conditions, columns;
};

/// Throws BadInput when --where or --column is given without a single table to apply it to.
void check_narrowing(const ReportOptions& options) {
  if (options.conditions.empty() && options.columns.empty()) return;
  if (options.names.size() != 1 || !options.out.empty()) {
    throw BadInput("--where and --column: expected one --table and no --out");
  }
}

/// The rows of `table` for which all `conditions` ("n_pairs=8") hold, with only `columns`, in that
/// order (all when it is empty). Compares values as numbers when both are numbers.
Table narrowed(const Table& table, const std::vector<std::string>& conditions,
               const std::vector<std::string>& columns) {
  std::vector<std::pair<std::size_t, Value>> wanted;
  for (const std::string& condition : conditions) {
    const std::size_t equals = condition.find('=');
    if (equals == std::string::npos) {
      throw BadInput(fmt::format("--where: expected COLUMN=VALUE, got \"{}\"", condition));
    }
    wanted.emplace_back(table.column(condition.substr(0, equals), "--where"),
                        field_value(condition.substr(equals + 1)));
  }
  std::vector<std::size_t> shown;
  for (const std::string& name : columns) shown.push_back(table.column(name, "--column"));

  Table part;
  part.name = table.name;
  part.columns = columns.empty() ? table.columns : columns;
  for (const std::vector<Value>& row : table.rows) {
    const bool holds = std::all_of(wanted.begin(), wanted.end(), [&](const auto& condition) {
      return compare(row[condition.first], condition.second) == 0;
    });
    if (!holds) continue;
    std::vector<Value> values;
    for (const std::size_t column : shown) values.push_back(row[column]);
    part.add(columns.empty() ? row : std::move(values));
  }
  return part;
}

int report(const ReportOptions& options) {
  check_narrowing(options);
  const FoundCells found = find_cells({options.folders.begin(), options.folders.end()});
  for (const std::string& problem : found.problems) log_error(problem);
  const int exit_code = found.problems.empty() ? kExitDone : kExitFailedRun;
  if (found.records.empty()) {
    const std::string where = fmt::format("{}", fmt::join(options.folders, ", "));
    if (found.in_progress == 0 && found.problems.empty()) {
      throw BadInput(fmt::format("no finished cell in {}", where));
    }
    log_info(fmt::format("no finished cell in {} yet, {} in progress", where, found.in_progress));
    return exit_code;
  }
  if (options.out.empty()) {
    std::vector<std::string> words = {"vla-bench", "report"};
    words.insert(words.end(), options.folders.begin(), options.folders.end());
    std::vector<Table> tables = report_tables(found, options.names);
    for (Table& table : tables) table = narrowed(table, options.conditions, options.columns);
    print_tables(tables, options.format, shell_words(words) + " --table {} --format csv");
  } else {
    write_report(found,
                 {.out = options.out, .names = options.names, .json = options.format == "json"});
  }
  return exit_code;
}

}  // namespace

void add_report(CommandLine& command_line) {
  const auto options = std::make_shared<ReportOptions>();
  Subcommand command = command_line.add(
      "report",
      "Gather finished cells into tables, with mean, sd, 95% interval and count over seeds",
      "Without --out the tables go to standard output: Markdown with headings, CSV tables\n"
      "separated by empty lines, or one JSON object of arrays. With --out every table becomes a\n"
      "CSV and a Markdown file (and JSON, with --format json), replacing those of an earlier\n"
      "report, together with the learning curves (history.csv), the provenance of the cells, and\n"
      "the configs that give them. Damaged records, and copies of a cell that differ, are named\n"
      "and left out, and the exit code is 1. Cells in progress are not an error.\n"
      "Example: vla-bench report results/runs/quick --format csv --table accuracy_summary",
      [options] { return report(*options); });
  command.positional(options->folders, {"DIR", "Results folders, searched through, or packs"});
  command.choice("--format", options->format, {"markdown", "csv", "json"},
                 "Of standard output (default markdown)");
  command.option("--out", options->out, {"DIR", "Write the tables into this folder instead"});
  command.option("--table", options->names, {"NAME", "Only this table (repeatable)"});
  command.option(
      "--where", options->conditions,
      {"COLUMN=VALUE", "Of one --table, only the rows that have this value (repeatable)"});
  command.option("--column", options->columns,
                 {"NAME", "Of one --table, only this column (repeatable)"});
}

}  // namespace vla_bench::cli
