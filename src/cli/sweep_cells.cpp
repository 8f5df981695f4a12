#include "cli/sweep_cells.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "cli/output.h"
#include "cli/sweep_file.h"
#include "core/error.h"
#include "core/files.h"
#include "experiments/cell_work.h"
#include "experiments/experiment.h"

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;

/// A cell that no sweep names, from its own config.
std::optional<PlannedCell> stray_cell(const RunDirectory& directory) {
  try {
    CellConfig cell{
        .config = parse_config(read_file(directory.config()), directory.config().string()),
        .hash = directory.folder.filename().string(),
        .title = ""};
    cell.title = fmt::format("{} {}", mixer_label(cell.config.mixers.front()), cell.hash);
    const Schema& schema = experiment_schema(cell.config.experiment);
    const Index flop = cell_flop(cell.config);
    return PlannedCell{
        .cell = std::move(cell), .directory = directory, .schema = &schema, .flop = flop};
  } catch (const BadInput& error) {
    log_warning(error.what());
    return std::nullopt;
  }
}

}  // namespace

std::map<fs::path, std::vector<PlannedCell>> find_sweep_cells(const fs::path& root) {
  std::map<fs::path, std::set<fs::path>> cells;  // folder -> its cells' folders
  for (const ListedFolder& listed : list_folders(root)) {
    if (listed.has(RunDirectory{listed.path}.config().filename().string())) {
      cells[listed.path.parent_path()].insert(listed.path);
    } else if (listed.has(sweep_note(listed.path).filename().string())) {
      cells.try_emplace(listed.path);
    }
  }
  std::map<fs::path, std::vector<PlannedCell>> found;
  for (auto& [folder, folders_of_cells] : cells) {
    std::string complaint;
    std::vector<PlannedCell> planned =
        noted_cells(folder, complaint).value_or(std::vector<PlannedCell>());
    if (!complaint.empty()) log_warning(complaint);
    for (const PlannedCell& one : planned) folders_of_cells.erase(one.directory.folder);
    for (const fs::path& stray : folders_of_cells) {
      if (auto cell = stray_cell({stray})) planned.push_back(*std::move(cell));
    }
    found.emplace(folder, std::move(planned));
  }
  if (found.empty()) throw BadInput(fmt::format("no cell in {}", root.string()));
  return found;
}

}  // namespace vla_bench::cli
