// Reads tables that earlier versions of the program stored.
#pragma once

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

/// Converts `stored`, rows of one cell with the columns of any version, to today's `schema`:
/// columns added since, or by slices of other cells, come from `config` (learning_rate, queries,
/// seed) or stay empty; recall's low and high are over its trials, whose half width was once stored
/// as ci95. Throws BadInput for a column that no version had.
Table as_today(const Table& stored, const Schema& schema, const RunConfig& config);

}  // namespace vla_bench
