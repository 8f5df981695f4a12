// What a cell's config says of the columns that identify a row, in one place for all tables.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

/// The value that `config` (one mixer, one seed, a resolved device) gives the column. Empty for
/// columns that it says nothing of, and for n_pairs and layout of an experiment that does not read
/// them.
Value column_of(const RunConfig& config, std::string_view column);
std::vector<Value> columns_of(const RunConfig& config, std::span<const Column> columns);

}  // namespace vla_bench
