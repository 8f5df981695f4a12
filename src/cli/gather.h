// What a report holds beside the gathered tables: learning curves and provenance of all cells.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "report/run_directory.h"
#include "report/table.h"

namespace vla_bench::cli {

/// Finished and failed cells below the folders, each once. Throws BadInput when a folder is missing
/// or none holds a cell.
std::vector<FinishedCell> collect_cells(const std::vector<std::string>& folders);

/// The cells' history.csv behind columns that say whose curve a row belongs to:
/// experiment,label,mixer,n_pairs,d_h,seq_len,precision,seed, then history's own. Empty without
/// training.
Table gather_history(const std::vector<FinishedCell>& cells);

/// The same straight into a CSV file, cell by cell: the curves of a large sweep are more than
/// memory holds, and than anybody reads as Markdown. Returns the number of rows.
std::int64_t write_gathered_history(const std::vector<FinishedCell>& cells,
                                    const std::filesystem::path& path);

/// How many of the cells have a curve.
std::size_t count_histories(const std::vector<FinishedCell>& cells);

/// JSON array of the distinct provenance.json of the cells.
std::string gather_provenance(const std::vector<FinishedCell>& cells);

}  // namespace vla_bench::cli
