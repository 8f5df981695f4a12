// vla-bench report: finished cells in, the tables of a paper out.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/gather.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "core/error.h"
#include "core/files.h"
#include "report/suite_configs.h"
#include "report/summary.h"

namespace vla_bench::cli {
namespace {

/// Learning curves beyond it are neither held in memory nor written as Markdown: a thousand of the
/// paper's are 60,000 rows.
constexpr std::size_t kMostCurvesHeld = 1000;

/// Cells whose common configs are worked out, which takes 65 KB a cell; a larger sweep has been
/// started from a config, which its sweep.json keeps.
constexpr std::size_t kMostConfigsTold = 1000;

struct ReportOptions {
  std::vector<std::string> folders;
  std::string format = "markdown";
  std::string out;
  std::vector<std::string> names;  // empty: all
};

void write_tables(const std::vector<Table>& tables, const std::filesystem::path& out, bool json) {
  for (const Table& table : tables) {
    write_file_atomically(out / (table.name + ".csv"), to_csv(table));
    write_file_atomically(out / (table.name + ".md"), to_markdown(table));
    if (json) write_file_atomically(out / (table.name + ".json"), to_json(table));
    log_info(fmt::format("{}: {} rows", (out / (table.name + ".csv")).string(), table.rows.size()));
  }
}

bool asks_for(const ReportOptions& options, std::string_view name) {
  return std::find(options.names.begin(), options.names.end(), name) != options.names.end();
}

bool is_history(const Table& table) { return table.name == history_schema().name; }

int report(const ReportOptions& options) {
  const std::vector<FinishedCell> cells = collect_cells(options.folders);
  std::vector<Table> tables = gather_tables(cells);
  if (options.out.empty()) {
    print_tables(select_tables(std::move(tables), options.names), options.format);
    return kExitDone;
  }
  const std::filesystem::path out = options.out;
  const bool wants_history = options.names.empty() || asks_for(options, history_schema().name);
  const std::size_t curves = wants_history ? count_histories(cells) : 0;
  const bool streamed = curves > kMostCurvesHeld;
  if (curves > 0) {
    // A streamed one stands here empty, so that it can be asked for by name.
    tables.push_back(gather_history(streamed ? std::vector<FinishedCell>() : cells));
  }
  tables = select_tables(std::move(tables), options.names);
  if (streamed) std::erase_if(tables, is_history);
  const std::string provenance = gather_provenance(cells);
  const bool tells_configs = cells.size() <= kMostConfigsTold;
  const std::string configs = tells_configs ? suite_configs(cells) : std::string();
  // All that can be wrong with the cells has come up by now, but for the lines of streamed curves:
  // a report that fails leaves no folder.
  require_writable_folder(out);
  write_tables(tables, out, options.format == "json");
  if (streamed) {
    const std::filesystem::path path = out / "history.csv";
    const std::int64_t rows = write_gathered_history(cells, path);
    log_info(
        fmt::format("{}: {} rows, of {} trainings: as CSV alone", path.string(), rows, curves));
  }
  write_file_atomically(out / "provenance.json", provenance);
  if (tells_configs) {
    write_file_atomically(out / "configs.json", configs);
  } else {
    log_info(fmt::format("no configs.json: {} cells, over {}; each cell has its config.json",
                         cells.size(), kMostConfigsTold));
  }
  return kExitDone;
}

}  // namespace

void add_report(CommandLine& command_line) {
  const auto options = std::make_shared<ReportOptions>();
  Subcommand command = command_line.add(
      "report",
      "Gather finished cells into tables, with mean, sd, 95% interval and count over seeds",
      "Without --out the tables go to standard output: Markdown with headings, CSV one table "
      "after\n"
      "the other with an empty line between, or one JSON object of arrays. With --out every table\n"
      "becomes a CSV and a Markdown file (and JSON, with --format json), together with the "
      "learning\n"
      "curves (history.csv), the provenance of the cells, and the configs that make them again.\n"
      "Example: vla-bench report results/runs/quick --format csv --table accuracy_summary",
      [options] { return report(*options); });
  command.positional(options->folders, {"DIR", "Results folders, searched through"});
  command.choice("--format", options->format, {"markdown", "csv", "json"},
                 "Of standard output (default markdown)");
  command.option("--out", options->out, {"DIR", "Write the tables into this folder instead"});
  command.option("--table", options->names, {"NAME", "Only this table (repeatable)"});
}

}  // namespace vla_bench::cli
