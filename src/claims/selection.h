// Selects rows of summary tables, and finds the cells behind them.
#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "claims/expected.h"
#include "report/table.h"

namespace vla_bench {

struct SelectedRows {
  using Row = std::vector<Value>;

  const Table* table = nullptr;
  std::vector<const Row*> rows{};
};

/// The rows that match all of the selection's columns; none when there is no such table. `place`
/// names the criterion in messages; an unknown column is BadInput.
SelectedRows select_rows(std::span<const Table> tables, const Selection& selection,
                         const std::string& place);

/// The columns in which the rows differ.
std::vector<std::size_t> differing_columns(const SelectedRows& selected);

/// Cells behind the rows that diverged or failed, from column not_ok:
///   "vla n_pairs=24 (seed 44: diverged: loss is nan at step 17)"
/// that is the line, the columns in which the selected rows differ, and the group's cells.
std::set<std::string> lost_cells(const SelectedRows& selected);

/// The same for all groups of all tables.
std::set<std::string> lost_cells(std::span<const Table> tables);

/// Rows whose median seed has an evaluation loss above ln(n_pairs) + 0.3:
///   "vla (n_pairs 64, median loss 5.44, ln 64 + 0.3 = 4.46)"
/// For the mean of slices, ln(n_pairs) is the mean over its slices. Guessing among the n values
/// shown has a loss of ln(n_pairs) nats; a model above that has not even learned which tokens are
/// values. Tables without a loss have no such rows.
std::vector<std::string> unlearned_groups(const SelectedRows& selected);

}  // namespace vla_bench
