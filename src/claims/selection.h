// Rows of summary tables that a selection names, and the cells behind them.
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

/// The rows where all of the selection's columns hold; none where there is no such table. `place`
/// names the criterion in messages; an unknown column is BadInput.
SelectedRows select_rows(std::span<const Table> tables, const Selection& selection,
                         const std::string& place);

/// The columns in which the rows are not all alike.
std::vector<std::size_t> differing_columns(const SelectedRows& selected);

/// Cells behind the rows that diverged or failed, from column not_ok:
///   "vla n_pairs=24 (seed 44: diverged: loss is nan at step 17)"
/// that is the line, the columns that tell the selected rows apart, and the group's cells.
std::set<std::string> lost_cells(const SelectedRows& selected);

/// The same of all groups of all tables.
std::set<std::string> lost_cells(std::span<const Table> tables);

/// Rows whose median seed has an evaluation loss above ln(n_pairs) + 0.3:
///   "vla (n_pairs 64, median loss 5.44, ln 64 + 0.3 = 4.46)"
/// Guessing among the n values shown costs ln(n_pairs) nats; a model above that has not even
/// learned which tokens are values. Tables without a loss have none.
std::vector<std::string> unlearned_groups(const SelectedRows& selected);

}  // namespace vla_bench
