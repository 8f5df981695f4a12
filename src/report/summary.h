// Gathers finished cells into the tables that figures, page, scripts and claims use.
#pragma once

#include <span>
#include <vector>

#include "report/record.h"
#include "report/table.h"

namespace vla_bench {

/// All tables of `cells`, each raw table followed by its summaries (`summarise` of the
/// experiment; that of the learning curves, which are not in memory, is report/curve_summary.h).
/// Rows are sorted: the order of the cells does not matter. Each cell is to be given once
/// (runs/find.h sees to that).
///
/// Averages are over cells of one label that differ in the seed only (report/grouping.h), and over
/// those of them that are ok. Every summary has
///   line     the label and what tells it from other lines (report/lines.h)
///   setting  all that differs among the label's cells and has no column
///   cells    "3 of 5": how many of the group's cells are ok
///   not_ok   the others, each with seed, status and reason
///   note     program versions where there are several, and what else a reader must know
///   config   8 digits that stand for the group
/// and of every quantity mean, sd, low and high (report/summary_rows.h).
std::vector<Table> gather_tables(std::span<const CellRecord> cells);

}  // namespace vla_bench
