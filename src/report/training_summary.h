// What accuracy_summary (Training::summarise) and the summary of learning curves share.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "report/grouping.h"
#include "report/lines.h"
#include "report/table.h"

namespace vla_bench {

/// What every table of trainings has behind `line`.
inline constexpr Column kTrainingKeys[] = {
    Columns::experiment, Columns::label,   Columns::mixer,         Columns::n_pairs,
    Columns::d_h,        Columns::n_heads, Columns::seq_len,       Columns::layout,
    Columns::short_conv, Columns::steps,   Columns::learning_rate, Columns::device,
    Columns::precision};
/// Their values; of `steps` those that were asked for: a run that diverged did fewer.
std::vector<Value> training_keys(const RunConfig& config);

/// Groups of trainings that want names: columns that are axes or panels of a figure tell their rows
/// apart already.
NamedCells named_training(const CellGroup& group);
/// Their names: lines are told apart where neither sizes, task, device nor precision do it, by
/// learning rate and steps too, although they have columns.
std::vector<LineName> name_trainings(std::span<const NamedCells> groups);

}  // namespace vla_bench
