// Gathering finished cells into the tables users plot.
#pragma once

#include <span>
#include <vector>

#include "core/statistics.h"
#include "report/record.h"
#include "report/table.h"

namespace vla_bench {

/// All tables of `cells`, each raw table followed by its summaries. Rows are sorted, so the order
/// of the cells does not matter. Each cell is to be given once (runs/find.h sees to that).
///
///   accuracy, recall, state_norm, jacobian, latency: the rows of all cells
///   accuracy_summary, recall_summary: mean, standard deviation and 95% interval over the seeds
///   with
///     status ok, and how many were not ok
///   state_norm_summary: the same at the last t, and linear / label: how many times larger the
///   state
///     of linear attention is there, under the same settings; empty without a linear run
///   jacobian_summary: over seeds, of each seed's mean sigma_max, mean cosine and last
///   product_norm;
///     sigma_max_max is the largest of all, closed_form_gap the largest |sigma_max -
///     sigma_closed_form|
///   (these two also say status and reason, which their raw tables have no columns for, and have a
///     row for a label that measured nothing; seeds that diverged before the last t are left out of
///     the means)
///   latency_fit, latency_crossover: see report/latency_summary.h
///
/// Cells that differ in a setting that no column shows (a learning rate, say) are never averaged:
/// the last column, config, tells them apart. With one seed deviation and interval are empty.
std::vector<Table> gather_tables(std::span<const CellRecord> cells);

}  // namespace vla_bench
