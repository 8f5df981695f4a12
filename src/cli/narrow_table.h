// A part of a table: what --where and --column of `report` ask for.
#pragma once

#include <string>
#include <vector>

#include "report/table.h"

namespace vla_bench::cli {

/// The rows of `table` where every one of `conditions` ("n_pairs=8") holds, and of these only
/// `columns`, in that order (all when it is empty). Values are compared as numbers where both are.
/// Throws BadInput naming the option for a condition without "=" and for a column that the table
/// does not have.
Table narrowed(const Table& table, const std::vector<std::string>& conditions,
               const std::vector<std::string>& columns);

}  // namespace vla_bench::cli
