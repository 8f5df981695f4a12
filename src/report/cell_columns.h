// What a cell's config says of the columns that identify a row, in one place for all tables.
#pragma once

#include <string_view>

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

/// The value that `config` (one mixer, one seed, a resolved device) gives the column: experiment,
/// label, mixer, n_pairs, layout, d_h, n_heads, seq_len, short_conv, batch, trials, source, seed,
/// learning_rate, queries, device, precision. Empty for other columns, and for n_pairs and layout
/// of the copy task, which has no pairs.
Value column_of(const RunConfig& config, std::string_view column);

/// The table that an experiment fills.
const Schema& experiment_schema(ExperimentKind kind);

}  // namespace vla_bench
