// The values of the columns that identify a row, from a cell's config, for all tables.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

/// Bytes in float32 of what the mixers of all layers and heads keep of one sequence of `tokens`:
/// a recurrence's S, normaliser and further state (vla: A); softmax's K V cache.
Index state_bytes(const RunConfig& config, Index tokens);
/// Bytes in float32 of the inputs that the convolutions of all layers keep of one sequence:
/// taps - 1 earlier tokens of each channel.
Index conv_state_bytes(const RunConfig& config);

/// The column's value in `config` (one mixer, one seed, a resolved device). Empty for columns that
/// are not from the config, and for n_pairs and layout of an experiment that does not read them.
/// With task.eval_segments it is that of the mean of slices; a slice's own are those of
/// Slice::config.
Value column_of(const RunConfig& config, std::string_view column);
std::vector<Value> columns_of(const RunConfig& config, std::span<const Column> columns);

}  // namespace vla_bench
