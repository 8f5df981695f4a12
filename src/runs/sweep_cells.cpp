#include "runs/sweep_cells.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "experiments/cost.h"
#include "runs/find.h"
#include "runs/sweep_note.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

PlannedCell planned_cell(CellConfig cell, const fs::path& run) {
  const Index flop = cell_flop(cell.config);
  CellFolder folder{run / cell.hash};
  return {.cell = std::move(cell), .folder = std::move(folder), .flop = flop};
}

/// A cell that no note names, from the files in its folder.
CellConfig stray_cell(const CellFolder& folder) {
  std::error_code ignored;
  RunConfig config =
      fs::exists(folder.record(), ignored)
          ? read_record(read_file(folder.record(), kLongestRecord), folder.record().string()).config
          : read_begun(folder);
  const std::string hash = folder.path.filename().string();
  std::string title = fmt::format("{} {}", mixer_label(config.mixers.front()), hash);
  return {.config = std::move(config), .hash = hash, .title = std::move(title)};
}

/// Adds the cells that `note` names.
void add_noted(const std::string& note, const std::string& origin, const fs::path& run,
               SweepCells& found) {
  try {
    for (CellConfig& cell : noted_cells(note, origin, run.filename().string())) {
      cell.config.name = run.filename().string();
      found.cells.push_back(planned_cell(std::move(cell), run));
    }
  } catch (const BadInput& error) {
    found.problems.emplace_back(error.what());
  }
}

using CellFolders = std::map<fs::path, std::set<fs::path>>;  // run -> folders of its cells

/// The runs below a folder, in folders and packs.
void list_runs(const fs::path& root, CellFolders& runs, std::map<fs::path, PackIndex>& packs) {
  for (const ListedFolder& listed : list_folders(root)) {
    if (listed.has("record.json") || listed.has("begun.json")) {
      runs[listed.path.parent_path()].insert(listed.path);
    } else if (listed.has(sweep_note(listed.path).filename().string())) {
      runs.try_emplace(listed.path);
    }
    if (std::any_of(listed.files.begin(), listed.files.end(),
                    [](const std::string& file) { return is_pack_name(file); })) {
      packs.try_emplace(listed.path, listed.path);
    }
  }
  for (const auto& [folder, index] : packs) {
    for (const auto& [name, note] : index.notes()) runs.try_emplace(folder / name);
  }
}

}  // namespace

std::map<fs::path, SweepCells> find_sweep_cells(const fs::path& root,
                                                std::map<fs::path, PackIndex>& packs) {
  CellFolders runs;
  std::error_code ignored;
  if (fs::is_regular_file(root, ignored)) {  // a pack
    const fs::path folder = root.parent_path();
    const std::string name = PackReader(root).note().name;
    packs.try_emplace(folder, folder);
    runs.try_emplace(folder / name);
  } else {
    list_runs(root, runs, packs);
  }
  std::map<fs::path, SweepCells> found;
  for (auto& [run, cell_folders] : runs) {
    SweepCells& sweep = found[run];
    const std::string name = run.filename().string();
    const PackIndex& packed = packs.try_emplace(run.parent_path(), run.parent_path()).first->second;
    if (has_sweep_note(run)) {
      add_noted(read_file(sweep_note(run)), sweep_note(run).string(), run, sweep);
    } else if (const auto note = packed.notes().find(name);
               note != packed.notes().end() && !note->second.empty()) {
      add_noted(note->second, (run.parent_path() / (name + ".jsonl")).string(), run, sweep);
    }
    for (const PlannedCell& one : sweep.cells) cell_folders.erase(one.folder.path);
    for (const fs::path& stray : cell_folders) {
      try {
        sweep.cells.push_back(planned_cell(stray_cell({stray}), run));
      } catch (const BadInput& error) {
        sweep.problems.emplace_back(error.what());
      }
    }
  }
  if (found.empty()) throw BadInput(fmt::format("no cell in {}", root.string()));
  return found;
}

}  // namespace vla_bench
