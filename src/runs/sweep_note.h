// sweep.json in a results folder <root>/<name>, and the first line of a pack: the resolved config
// whose cells lie there, sweep and all. It says which cells are still to come; results never depend
// on it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/read.h"

namespace vla_bench {

/// Where the note of a folder lies.
std::filesystem::path sweep_note(const std::filesystem::path& folder);
bool has_sweep_note(const std::filesystem::path& folder);

/// Notes `config`, whose cells on `device` are `cells` (all of them), in <root>/<name> of every
/// name among them. A note whose cells include these is kept: a part of a sweep may be run again by
/// itself. Throws RunError when a file cannot be written.
void note_sweep(const RunConfig& config, Device device, const std::filesystem::path& root,
                const std::vector<CellConfig>& cells);

/// The cells that a note's text names, of the run `name`; a run that was given another name still
/// holds the cells of its config. Throws BadInput, `origin` in front, when this version cannot read
/// it.
std::vector<CellConfig> noted_cells(const std::string& text, const std::string& origin,
                                    const std::string& name);

}  // namespace vla_bench
