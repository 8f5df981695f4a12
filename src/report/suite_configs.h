// Finished cells, told as the configs that make them: what a reader needs to repeat a table.
#pragma once

#include <span>
#include <string>

#include "report/record.h"

namespace vla_bench {

/// JSON array of configs. Together they expand to the cells, each cell once and no other: what all
/// cells of one have in common stands as it is, and the rest in `mixers`, `sweep` and `seeds`.
/// Cells of another experiment, name or device never share one. In an order that does not depend on
/// that of the cells.
std::string suite_configs(std::span<const CellRecord> cells);

}  // namespace vla_bench
