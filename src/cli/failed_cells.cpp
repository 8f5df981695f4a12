#include "cli/failed_cells.h"

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
  if (!std::filesystem::is_directory(root)) return {};
  return read_failed_cells(list_folders(root));
}

std::vector<FinishedCell> read_failed_cells(const std::vector<ListedFolder>& folders) {
  std::vector<FinishedCell> cells;
  for (const ListedFolder& folder : folders) {
    for (const std::string& name : folder.files) {
      if (!name.ends_with(kSuffix)) continue;
      const Schema* schema =
          find_schema(std::string_view(name).substr(0, name.size() - kSuffix.size()));
      if (schema == nullptr || folder.has(std::string(schema->name) + ".csv")) continue;
      cells.push_back(read_cell(folder, name, *schema));
    }
  }
  return cells;
}

}  // namespace vla_bench::cli
