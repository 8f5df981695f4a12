// The tables of finished cells: what `report` prints and writes, and what a run writes that finds
// its config complete.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/table.h"
#include "runs/find.h"

namespace vla_bench::cli {

/// The tables called `names`, all but the learning curves' when it is empty. Throws BadInput for a
/// name that is none.
std::vector<Table> report_tables(const FoundCells& found, const std::vector<std::string>& names);

struct ReportFiles {
  std::filesystem::path out;
  std::vector<std::string> names{};  // tables; empty: all
  bool json = false;                 // beside CSV and Markdown
};

/// Writes the tables into a folder, with the learning curves (history.csv, history_curve.csv; of
/// more than 1,000 trainings only where they are named), the provenance of the cells
/// (provenance.json) and, of up to 1,000 cells, the configs that make them again (configs.json).
/// Tables of an earlier report there are removed first. Throws BadInput before anything is written
/// when a name is none or the folder is not writable.
void write_report(const FoundCells& found, const ReportFiles& files);

/// The cells of `found` for which `wanted` holds.
FoundCells only_cells(const FoundCells& found,
                      const std::function<bool(const CellRecord&)>& wanted);

}  // namespace vla_bench::cli
