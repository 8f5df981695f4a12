// Tables as earlier versions of the program stored them.
#pragma once

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

/// `stored`, rows of one cell whose columns are those of any version, as `schema` has them today:
/// columns that were added since come from `config` (learning_rate, queries, seed) or stay empty;
/// recall's low and high are those of its trials, whose half width was once stored as ci95. Throws
/// BadInput for a column that no version had.
Table as_today(const Table& stored, const Schema& schema, const RunConfig& config);

}  // namespace vla_bench
