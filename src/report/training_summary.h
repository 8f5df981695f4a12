// Shared by accuracy_summary (Training::summarise) and the summary of learning curves.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "report/grouping.h"
#include "report/lines.h"
#include "report/table.h"

namespace vla_bench {

/// The columns after `line` in every table of trainings.
inline constexpr Column kTrainingKeys[] = {
    Columns::experiment, Columns::label,   Columns::mixer,         Columns::n_pairs,
    Columns::d_h,        Columns::n_heads, Columns::seq_len,       Columns::layout,
    Columns::short_conv, Columns::steps,   Columns::learning_rate, Columns::device,
    Columns::precision};
/// Their values; `steps` is the config's, even when a run diverged earlier.
std::vector<Value> training_keys(const RunConfig& config);

/// Groups of trainings to be named: columns that are axes or panels of a figure already distinguish
/// their rows.
NamedCells named_training(const CellGroup& group);
/// Their names: lines that sizes, task, device and precision do not distinguish are distinguished
/// by other keys, including learning rate and steps, although these have columns.
std::vector<LineName> name_trainings(std::span<const NamedCells> groups);

}  // namespace vla_bench
