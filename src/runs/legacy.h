// Reads cells of versions before sealed records: config.json, status.json, provenance.json,
// history.csv and <table>.csv in a folder. Only `pack` reads them.
#pragma once

#include <optional>

#include "runs/find.h"

namespace vla_bench {

bool is_legacy_cell(const ListedFolder& folder);

/// The cell in `folder` as a record with its learning curve; empty when it was not finished.
/// Throws BadInput naming the file.
std::optional<CellRecord> read_legacy_cell(const ListedFolder& folder);

}  // namespace vla_bench
