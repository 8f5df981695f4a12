#include "cli/gather.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <set>
#include <utility>

#include "cli/failed_cells.h"
#include "core/error.h"

namespace vla_bench::cli {

std::vector<FinishedCell> collect_cells(const std::vector<std::string>& folders) {
  std::vector<FinishedCell> cells;
  std::set<std::pair<std::filesystem::path, std::string>> seen;  // folders may overlap
  for (const std::string& folder : folders) {
    if (!std::filesystem::is_directory(folder)) {
      throw BadInput(fmt::format("{}: no such folder", folder));
    }
    for (auto* find : {&find_finished_cells, &find_failed_cells}) {
      for (FinishedCell& cell : find(folder)) {
        const auto place = std::filesystem::weakly_canonical(cell.directory.folder);
        if (seen.emplace(place, cell.table.name).second) cells.push_back(std::move(cell));
      }
    }
  }
  if (cells.empty()) {
    throw BadInput(fmt::format("no finished cell in {}", fmt::join(folders, ", ")));
  }
  return cells;
}

Table gather_history(const std::vector<FinishedCell>& cells) {
  constexpr std::array kCellColumns = {"experiment", "label",   "mixer",     "n_pairs",
                                       "d_h",        "seq_len", "precision", "seed"};
  Table gathered;
  gathered.name = "history";
  gathered.columns.assign(kCellColumns.begin(), kCellColumns.end());
  const Schema& schema = history_schema();
  gathered.columns.insert(gathered.columns.end(), schema.columns.begin(), schema.columns.end());
  for (const FinishedCell& cell : cells) {
    const std::filesystem::path path = cell.directory.folder / "history.csv";
    // The cell's own row says whose curve it is: a config of another version need not be readable.
    const bool trained = cell.table.name == accuracy_schema().name && !cell.table.rows.empty();
    if (!trained || !std::filesystem::exists(path)) continue;
    std::vector<Value> prefix;
    for (const char* column : kCellColumns) {
      prefix.push_back(cell.table.rows.front()[cell.table.column(column)]);
    }
    for (const std::vector<Value>& row : read_csv(path, schema).rows) {
      std::vector<Value> extended = prefix;
      extended.insert(extended.end(), row.begin(), row.end());
      gathered.add(std::move(extended));
    }
  }
  return gathered;
}

std::string gather_provenance(const std::vector<FinishedCell>& cells) {
  std::set<std::string> distinct;
  for (const FinishedCell& cell : cells) {
    if (!cell.provenance_json.empty()) distinct.insert(cell.provenance_json);
  }
  return fmt::format("[\n{}\n]\n", fmt::join(distinct, ",\n"));
}

}  // namespace vla_bench::cli
