// Cells as versions before sealed records left them: config.json, status.json, provenance.json,
// history.csv and <table>.csv in a folder. `pack` reads them, once.
#pragma once

#include <optional>

#include "runs/find.h"

namespace vla_bench {

bool is_legacy_cell(const ListedFolder& folder);

/// The cell in `folder` as a record with its learning curve; nothing when it was not finished.
/// Throws BadInput naming the file.
std::optional<CellRecord> read_legacy_cell(const ListedFolder& folder);

}  // namespace vla_bench
