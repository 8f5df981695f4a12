// The cells of a results folder: those that lie there, and those that are still to come.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cli/plan.h"

namespace vla_bench::cli {

/// By folder <root>/<name>, `root` being that folder or any above it: the cells that its sweep.json
/// names, in their order, then others that were once begun there, in the order of their hashes. A
/// config that this version cannot read is logged and its cell left out. Throws BadInput when there
/// is no such folder or no cell in it.
std::map<std::filesystem::path, std::vector<PlannedCell>> find_sweep_cells(
    const std::filesystem::path& root);

}  // namespace vla_bench::cli
