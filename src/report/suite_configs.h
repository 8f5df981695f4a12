// The configs that give a set of finished cells, so that a reader can repeat a table.
#pragma once

#include <span>
#include <string>

#include "report/record.h"

namespace vla_bench {

/// Returns a JSON array of configs. Together they expand to exactly these cells, each once: values
/// that all cells of a config share are set as they are, the others are in `mixers`, `sweep` and
/// `seeds`. Cells of different experiments, names or devices never share a config. The order does
/// not depend on that of the cells.
std::string suite_configs(std::span<const CellRecord> cells);

}  // namespace vla_bench
