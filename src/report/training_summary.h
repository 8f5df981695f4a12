// Trainings over seeds: accuracy_summary, and what it shares with the summary of learning curves.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "report/grouping.h"
#include "report/lines.h"
#include "report/table.h"

namespace vla_bench {

/// experiment, label, mixer, n_pairs, d_h, n_heads, seq_len, layout, short_conv, steps,
/// learning_rate, device, precision: what every table of trainings has behind `line`.
const std::vector<std::string>& training_columns();
std::vector<Value> training_values(const RunConfig& config);

/// Names for groups of trainings: lines are told apart where neither sizes, task, device nor
/// precision do it, by learning rate and steps too, although they have columns.
std::vector<LineName> name_trainings(std::span<const NamedCells> groups);
NamedCells named_training(std::string label, std::string hash, const RunConfig& config);

/// What sorts rows: the line, then its columns.
std::vector<Value> training_order(const LineName& name, const NamedCells& cells);

/// "accuracy_summary": mean, deviation and interval over the cells that are ok, of accuracy (over
/// `queries` draws a seed), loss and train_seconds; loss_median. train_seconds stays empty, with a
/// note, where these cells ran on several processors or beside different numbers of threads or
/// jobs: such times do not compare.
Table summarise_accuracy(std::span<const CellGroup> groups);

}  // namespace vla_bench
