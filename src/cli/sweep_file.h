// sweep.json in a results folder <root>/<name>: the resolved config whose cells lie there, sweep
// and all. It says which cells are still to come; results never depend on it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/plan.h"

namespace vla_bench::cli {

/// Notes `config`, whose cells on `device` are `plan` (all of them), in every folder of the plan. A
/// note whose cells include these is kept: a part of a sweep may be run again by itself. Throws
/// RunError when a file cannot be written.
void note_sweep(const RunConfig& config, Device device, const std::filesystem::path& root,
                const std::vector<PlannedCell>& plan);

/// Where the note of a folder lies.
std::filesystem::path sweep_note(const std::filesystem::path& folder);
bool has_sweep_note(const std::filesystem::path& folder);

/// The cells noted in `folder` (<root>/<name>), with their folders there; nothing without a note,
/// or with one that is not readable (another version's): its reason goes to `complaint`.
std::optional<std::vector<PlannedCell>> noted_cells(const std::filesystem::path& folder,
                                                    std::string& complaint);

}  // namespace vla_bench::cli
