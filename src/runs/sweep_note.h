// sweep.json in a results folder <root>/<name>, and the first line of a pack: the resolved config
// of its cells, with the sweep. It tells which cells remain to be run; results never depend on it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/read.h"

namespace vla_bench {

/// The path of a folder's note.
std::filesystem::path sweep_note(const std::filesystem::path& folder);
bool has_sweep_note(const std::filesystem::path& folder);

/// Writes the note of `config`, all of whose cells on `device` are `cells`, to <root>/<name> for
/// every name among them. Keeps a note whose cells include these, since a part of a sweep may be
/// run again. Throws RunError when a file cannot be written.
void note_sweep(const RunConfig& config, Device device, const std::filesystem::path& root,
                const std::vector<CellConfig>& cells);

/// The cells of the run `name` in a note's text; a renamed run still has the cells of its config.
/// Throws BadInput, beginning with `origin`, when this version cannot read it.
std::vector<CellConfig> noted_cells(const std::string& text, const std::string& origin,
                                    const std::string& name);

}  // namespace vla_bench
