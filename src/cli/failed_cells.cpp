#include "cli/failed_cells.h"

#include <algorithm>
#include <system_error>

#include "core/files.h"

namespace vla_bench::cli {
namespace {

constexpr std::string_view kSuffix = ".failed.csv";

}  // namespace

std::filesystem::path failed_path(const RunDirectory& directory, std::string_view table_name) {
  return directory.folder / (std::string(table_name) + std::string(kSuffix));
}

void write_failed(const RunDirectory& directory, const Table& table, const CellOutcome& outcome) {
  directory.write_outcome(outcome);
  write_file_atomically(failed_path(directory, table.name), to_csv(table));
}

void clear_failed(const RunDirectory& directory, std::string_view table_name) {
  std::error_code ignored;  // another process may have removed it
  std::filesystem::remove(failed_path(directory, table_name), ignored);
}

std::vector<FinishedCell> find_failed_cells(const std::filesystem::path& root) {
  std::vector<FinishedCell> cells;
  if (!std::filesystem::is_directory(root)) return cells;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(kSuffix)) continue;
    const Schema* schema =
        find_schema(std::string_view(name).substr(0, name.size() - kSuffix.size()));
    const RunDirectory directory{entry.path().parent_path()};
    if (schema == nullptr || directory.finished(schema->name)) continue;
    cells.push_back({.directory = directory,
                     .config_json = read_file(directory.config()),
                     .table = read_csv(entry.path(), *schema),
                     .outcome = directory.read_outcome(),
                     .provenance_json = directory.read_provenance()});
  }
  std::sort(cells.begin(), cells.end(), [](const FinishedCell& a, const FinishedCell& b) {
    return a.directory.folder < b.directory.folder;
  });
  return cells;
}

}  // namespace vla_bench::cli
