// Selects a part of a table, for --where and --column of `report`.
#pragma once

#include <string>
#include <vector>

#include "report/table.h"

namespace vla_bench::cli {

/// The rows of `table` for which all `conditions` ("n_pairs=8") hold, with only `columns`, in that
/// order (all when it is empty). Compares values as numbers when both are numbers.
/// Throws BadInput naming the option for a condition without "=" and for a column that the table
/// does not have.
Table narrowed(const Table& table, const std::vector<std::string>& conditions,
               const std::vector<std::string>& columns);

}  // namespace vla_bench::cli
