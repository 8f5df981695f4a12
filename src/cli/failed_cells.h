// Cells that failed. They do not count as finished (the next run tries them again), yet a report
// shows them with their reason: their rows lie in <table>.failed.csv beside where <table>.csv
// would.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "report/run_directory.h"

namespace vla_bench::cli {

/// Where the rows of a failed cell lie.
std::filesystem::path failed_path(const RunDirectory& directory, std::string_view table_name);

void write_failed(const RunDirectory& directory, const Table& table, const CellOutcome& outcome);
/// After a cell finished: what it once failed with is history.
void clear_failed(const RunDirectory& directory, std::string_view table_name);

/// Failed cells below `root` that nobody has finished since, in path order.
std::vector<FinishedCell> find_failed_cells(const std::filesystem::path& root);
std::vector<FinishedCell> read_failed_cells(const std::vector<ListedFolder>& folders);

}  // namespace vla_bench::cli
