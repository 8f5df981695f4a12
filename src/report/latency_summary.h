// Timings: latency_summary, and what follows from them, latency_fit and latency_crossover
// (report/latency_law.h has the formulas).
#pragma once

#include <span>
#include <vector>

#include "report/grouping.h"
#include "report/table.h"

namespace vla_bench {

/// "latency_summary", "latency_fit" and "latency_crossover".
///
/// A row of the summary is one pass of one implementation at one length, of cells that differ in
/// the seed only and ran on one processor (or GPU) with one number of threads, as their provenance
/// names them. Of several seeds: the median of the medians, the smallest p10, the largest p90, the
/// sum of the repeats, the largest relative_error. A timing that did not reach the relative_error
/// that its config asks for says so in `note`.
///
/// A line of the fit is all lengths of that, however each was repeated and whatever was timed
/// beside it; cells that differ in anything else are other lines. `cells` and `not_ok` of fits and
/// crossovers are those of all timings behind them, the baseline's as well.
/// Each line that is not softmax's has a crossover against every softmax of its setting (reference
/// or not, device, processor, threads, batch, n_heads, d_h, pass): one for each implementation and
/// precision, timed as the mixer was (repeats and so on) where there is such a one, else the first
/// label; the columns baseline, baseline_implementation and baseline_precision name it. seq_len_low
/// is empty where the mixer may be cheaper below the shortest length, seq_len_high where there is
/// no upper bound.
std::vector<Table> summarise_latency(std::span<const CellGroup> groups);

}  // namespace vla_bench
