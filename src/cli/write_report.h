// The tables of finished cells, for `report` and for a run that completes its config.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/table.h"
#include "runs/find.h"

namespace vla_bench::cli {

/// The tables called `names`; all except those of the learning curves when it is empty. Throws
/// BadInput for an unknown name.
std::vector<Table> report_tables(const FoundCells& found, const std::vector<std::string>& names);

struct ReportFiles {
  std::filesystem::path out;
  std::vector<std::string> names{};  // tables; empty: all
  bool json = false;                 // in addition to CSV and Markdown
};

/// Writes the tables into a folder, with the learning curves (history.csv, history_curve.csv; for
/// more than 1,000 trainings only if they are named), the provenance of the cells (provenance.json)
/// and, for up to 1,000 cells, the configs that give them (configs.json). Removes tables of an
/// earlier report first. Throws BadInput before writing anything when a name is unknown or the
/// folder is not writable.
void write_report(const FoundCells& found, const ReportFiles& files);

/// The cells of `found` for which `wanted` holds.
FoundCells only_cells(const FoundCells& found,
                      const std::function<bool(const CellRecord&)>& wanted);

}  // namespace vla_bench::cli
