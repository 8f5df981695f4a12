#include "cli/write_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "cli/output.h"
#include "cli/print_tables.h"
#include "core/files.h"
#include "report/suite_configs.h"
#include "report/summary.h"

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;

/// Learning curves beyond it are neither held in memory nor written as Markdown: a thousand of the
/// paper's are 60,000 rows.
constexpr std::size_t kMostCurvesHeld = 1000;

/// Cells whose common configs are worked out, which takes 65 KB a cell; a larger sweep has been
/// started from a config, which its sweep.json keeps.
constexpr std::size_t kMostConfigsTold = 1000;

constexpr const char* kHistory = "history";

constexpr std::array kCellColumns = {"experiment", "label",   "mixer",     "n_pairs",
                                     "d_h",        "seq_len", "precision", "seed"};

Table empty_history() {
  Table table;
  table.name = kHistory;
  table.columns.assign(kCellColumns.begin(), kCellColumns.end());
  const Schema& schema = history_schema();
  table.columns.insert(table.columns.end(), schema.columns.begin(), schema.columns.end());
  return table;
}

/// Appends a cell's curve behind what says whose it is.
void append_history(const CellRecord& record, const Table& curve, Table& gathered) {
  const Table* accuracy = record.table(accuracy_schema().name);
  if (accuracy == nullptr || accuracy->rows.empty()) return;
  std::vector<Value> whose;
  for (const char* column : kCellColumns) {
    whose.push_back(accuracy->rows.front()[accuracy->column(column)]);
  }
  for (const std::vector<Value>& row : curve.rows) {
    std::vector<Value> extended = whose;
    extended.insert(extended.end(), row.begin(), row.end());
    gathered.add(std::move(extended));
  }
}

std::size_t count_histories(const FoundCells& found) {
  return static_cast<std::size_t>(
      std::count_if(found.records.begin(), found.records.end(),
                    [](const CellRecord& record) { return record.has_history; }));
}

bool asks_for(const std::vector<std::string>& names, std::string_view name) {
  return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

/// JSON array of the distinct provenances of the cells.
std::string gather_provenance(const FoundCells& found) {
  std::set<std::string> distinct;
  for (const CellRecord& record : found.records) {
    if (!record.provenance.empty()) distinct.insert(record.provenance.to_json());
    for (const Provenance& other : record.others) distinct.insert(other.to_json());
  }
  return fmt::format("[\n{}\n]\n", fmt::join(distinct, ",\n"));
}

/// Whether a file is one that a report writes: a table, whatever its cells, or what tells of them.
bool is_report_file(const fs::path& file) {
  const std::string name = file.filename().string();
  if (name == "provenance.json" || name == "configs.json") return true;
  const std::string extension = file.extension().string();
  if (extension != ".csv" && extension != ".md" && extension != ".json") return false;
  const std::string stem = file.stem().string();
  for (const char* table : {"accuracy", "recall", "state_norm", "jacobian", "latency", "history"}) {
    if (stem == table) return true;
    for (const char* suffix : {"_summary", "_curve", "_fit", "_crossover"}) {
      if (stem == std::string(table) + suffix) return true;
    }
  }
  return false;
}

/// Tables of other cells must not stay beside those of these.
void remove_earlier_report(const fs::path& out) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(out)) {
    if (entry.is_regular_file() && is_report_file(entry.path())) files.push_back(entry.path());
  }
  for (const fs::path& file : files) fs::remove(file);
}

void write_table(const Table& table, const ReportFiles& files) {
  const fs::path& out = files.out;
  write_file_atomically(out / (table.name + ".csv"), to_csv(table));
  write_file_atomically(out / (table.name + ".md"), to_markdown(table));
  if (files.json) write_file_atomically(out / (table.name + ".json"), to_json(table));
  log_info(fmt::format("{}: {} rows", (out / (table.name + ".csv")).string(), table.rows.size()));
}

/// The curves into files: straight into a CSV file where there are too many to be held.
void write_curves(const FoundCells& found, const ReportFiles& files) {
  const std::size_t curves = count_histories(found);
  if (curves == 0 || !asks_for(files.names, kHistory)) return;
  Table rows = empty_history();
  if (curves <= kMostCurvesHeld) {
    read_histories(found, [&](const CellRecord& record, const Table& curve) {
      append_history(record, curve, rows);
    });
    write_table(rows, files);
    return;
  }
  const fs::path path = files.out / "history.csv";
  AtomicFile file(path);
  file.write(to_csv(rows));
  std::size_t count = 0;
  read_histories(found, [&](const CellRecord& record, const Table& curve) {
    Table own = empty_history();
    append_history(record, curve, own);
    const std::string text = to_csv(own);
    file.write(std::string_view(text).substr(text.find('\n') + 1));
    count += own.rows.size();
  });
  file.commit();
  log_info(fmt::format("{}: {} rows, of {} trainings: as CSV only", path.string(), count, curves));
}

}  // namespace

std::vector<Table> report_tables(const FoundCells& found, const std::vector<std::string>& names) {
  std::vector<Table> tables = gather_tables(found.records);
  if (!names.empty() && asks_for(names, kHistory) && count_histories(found) > 0) {
    tables.push_back(empty_history());
    read_histories(found, [&](const CellRecord& record, const Table& curve) {
      append_history(record, curve, tables.back());
    });
  }
  return select_tables(std::move(tables), names);
}

void write_report(const FoundCells& found, const ReportFiles& files) {
  std::vector<Table> tables = gather_tables(found.records);
  // The curves are written by themselves; here they stand empty, so that they can be asked for.
  if (count_histories(found) > 0) tables.push_back(empty_history());
  tables = select_tables(std::move(tables), files.names);
  std::erase_if(tables, [](const Table& table) { return table.name == kHistory; });
  const bool tells_configs = found.records.size() <= kMostConfigsTold;
  const std::string configs = tells_configs ? suite_configs(found.records) : std::string();
  require_writable_folder(files.out);
  remove_earlier_report(files.out);
  for (const Table& table : tables) write_table(table, files);
  write_curves(found, files);
  write_file_atomically(files.out / "provenance.json", gather_provenance(found));
  if (tells_configs) {
    write_file_atomically(files.out / "configs.json", configs);
  } else {
    log_info(fmt::format("no configs.json: {} cells, over {}; each record has its config",
                         found.records.size(), kMostConfigsTold));
  }
}

FoundCells only_cells(const FoundCells& found,
                      const std::function<bool(const CellRecord&)>& wanted) {
  FoundCells some;
  for (std::size_t i = 0; i < found.records.size(); ++i) {
    if (!wanted(found.records[i])) continue;
    some.records.push_back(found.records[i]);
    some.sources.push_back(found.sources[i]);
  }
  return some;
}

}  // namespace vla_bench::cli
