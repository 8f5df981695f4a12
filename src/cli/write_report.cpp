#include "cli/write_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "cli/output.h"
#include "cli/print_tables.h"
#include "config/read.h"
#include "core/files.h"
#include "report/cell_columns.h"
#include "report/curve_summary.h"
#include "report/grouping.h"
#include "report/suite_configs.h"
#include "report/summary.h"

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;

/// More learning curves than this are read only on request, and then written as CSV, one after the
/// other: a thousand of the paper's are 60,000 rows.
constexpr std::size_t kMostCurvesHeld = 1000;

/// Most cells whose common configs are determined, which takes 65 KB per cell; the config of a
/// larger sweep is in its sweep.json.
constexpr std::size_t kMostConfigsTold = 1000;

constexpr const char* kHistory = "history";
constexpr const char* kHistoryCurve = "history_curve";

constexpr Column kCellColumns[] = {Columns::experiment, Columns::label, Columns::mixer,
                                   Columns::n_pairs,    Columns::d_h,   Columns::seq_len,
                                   Columns::precision,  Columns::seed};

/// The columns that identify a curve, then those of the curve.
Table empty_history() {
  Table table;
  table.name = kHistory;
  table.columns.assign(std::begin(kCellColumns), std::end(kCellColumns));
  table.columns.emplace_back(Columns::config);
  const Schema& schema = history_schema();
  table.columns.insert(table.columns.end(), schema.columns.begin(), schema.columns.end());
  return table;
}

void append_history(const CellRecord& record, const Table& curve, Table& gathered) {
  TrainSizes sizes(record.config);
  std::vector<std::vector<Value>> whose;
  for (const RunConfig& config : sizes.configs()) {
    whose.push_back(columns_of(config, kCellColumns));
    whose.back().emplace_back(record.group);
  }
  const std::size_t step = curve.column(Columns::step);
  for (const std::vector<Value>& row : curve.rows) {
    const auto done = static_cast<Index>(number(row[step]).value_or(1.0));
    std::vector<Value> extended = whose[sizes.at(std::max<Index>(done - 1, 0))];
    extended.insert(extended.end(), row.begin(), row.end());
    gathered.add(std::move(extended));
  }
}

/// "history", every row of every cell, and "history_curve", means over seeds.
std::vector<Table> curve_tables(const FoundCells& found) {
  Table rows = empty_history();
  CurveSummary summary(found.records);
  read_histories(found, [&](const CellRecord& record, const Table& curve) {
    append_history(record, curve, rows);
    summary.add(record, curve);
  });
  return {std::move(rows), summary.table()};
}

std::size_t count_histories(const FoundCells& found) {
  return static_cast<std::size_t>(
      std::count_if(found.records.begin(), found.records.end(),
                    [](const CellRecord& record) { return record.has_history; }));
}

bool is_named(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
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

/// Whether a report writes a file of this name: a table, configs.json or provenance.json.
bool is_report_file(const fs::path& file) {
  const std::string name = file.filename().string();
  if (name == "provenance.json" || name == "configs.json") return true;
  const std::string extension = file.extension().string();
  if (extension != ".csv" && extension != ".md" && extension != ".json") return false;
  const std::string stem = file.stem().string();
  std::string_view raw = stem;
  for (const std::string_view suffix : {"_summary", "_curve", "_fit", "_crossover"}) {
    if (raw.ends_with(suffix)) raw.remove_suffix(suffix.size());
  }
  return find_schema(raw) != nullptr;
}

/// Removes tables of an earlier report, which may have other cells.
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

std::string rows_without_header(const Table& table) {
  const std::string text = to_csv(table);
  return text.substr(text.find('\n') + 1);
}

/// Writes more curves than fit into memory, to the requested ones of the two files.
void stream_curves(const FoundCells& found, const ReportFiles& files) {
  CurveSummary summary(found.records);
  std::optional<AtomicFile> rows;
  if (is_named(files.names, kHistory)) {
    rows.emplace(files.out / "history.csv");
    rows->write(to_csv(empty_history()));
  }
  read_histories(found, [&](const CellRecord& record, const Table& curve) {
    summary.add(record, curve);
    if (!rows) return;
    Table own = empty_history();
    append_history(record, curve, own);
    rows->write(rows_without_header(own));
  });
  if (rows) rows->commit();
  if (!is_named(files.names, kHistoryCurve)) return;
  AtomicFile means(files.out / "history_curve.csv");
  bool begun = false;
  summary.each_group([&](const Table& group) {
    means.write(std::exchange(begun, true) ? rows_without_header(group) : to_csv(group));
  });
  means.commit();
}

/// All tables of a report, with those of the learning curves when `with_curves`.
std::vector<Table> all_tables(const FoundCells& found, bool with_curves) {
  std::vector<Table> tables = gather_tables(found.records);
  if (with_curves && count_histories(found) > 0) {
    for (Table& table : curve_tables(found)) tables.push_back(std::move(table));
  }
  return tables;
}

bool names_curves(const std::vector<std::string>& names) {
  return is_named(names, kHistory) || is_named(names, kHistoryCurve);
}

}  // namespace

std::vector<Table> report_tables(const FoundCells& found, const std::vector<std::string>& names) {
  return select_tables(all_tables(found, names_curves(names)), names);
}

void write_report(const FoundCells& found, const ReportFiles& files) {
  const std::size_t curves = count_histories(found);
  const bool held = curves <= kMostCurvesHeld;
  std::vector<Table> tables = all_tables(found, held);
  if (!held) {  // written separately; empty here, so that their names are known
    for (const char* name : {kHistory, kHistoryCurve}) tables.emplace_back().name = name;
  }
  tables = select_tables(std::move(tables), files.names);
  if (!held) std::erase_if(tables, [](const Table& table) { return table.columns.empty(); });
  const bool tells_configs = found.records.size() <= kMostConfigsTold;
  const std::string configs = tells_configs ? suite_configs(found.records) : std::string();
  require_writable_folder(files.out);
  remove_earlier_report(files.out);
  for (const Table& table : tables) write_table(table, files);
  if (!held && names_curves(files.names)) {
    stream_curves(found, files);
  } else if (!held) {
    log_info(
        fmt::format("no learning curves: {} trainings, over {}; --table history and --table "
                    "history_curve write them",
                    curves, kMostCurvesHeld));
  }
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
