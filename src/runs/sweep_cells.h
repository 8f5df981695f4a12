// The cells of a results folder: those that are there, and those that are still to be run.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "runs/pack.h"
#include "runs/plan.h"

namespace vla_bench {

/// One run, <root>/<name>: its folder, its packs, or both.
struct SweepCells {
  std::vector<PlannedCell> cells;
  std::vector<std::string> problems;  // notes and configs that this version cannot read
};

/// The runs below `root` (that folder or any above it), by <root>/<name>: the cells that the
/// sweep's note names, in their order, then other cells with a folder, in the order of their
/// hashes. `packs` receives the index of each folder that contains runs. Throws BadInput when there
/// is no such folder or no cell in it.
std::map<std::filesystem::path, SweepCells> find_sweep_cells(
    const std::filesystem::path& root, std::map<std::filesystem::path, PackIndex>& packs);

}  // namespace vla_bench
