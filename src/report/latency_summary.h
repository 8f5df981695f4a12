// How latency grows with the sequence length, and where a mixer becomes cheaper than softmax.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/statistics.h"
#include "report/grouping.h"
#include "report/table.h"

namespace vla_bench {

/// One line of a latency figure.
struct LatencyLine {
  std::vector<std::pair<double, double>> points;  // (tokens, median seconds), tokens ascending
  // Fitted to the lengths from 512 tokens on when there are at least 3 of them, else to all: below,
  // fixed costs hide the growth. Empty with fewer than 2 lengths.
  std::optional<PowerLaw> law;
  double first = 0.0, last = 0.0;  // fitted range, tokens
  std::int64_t fitted = 0;         // lengths in it
};
LatencyLine fit_latency(std::vector<std::pair<double, double>> points);

/// From which length on a mixer is cheaper than softmax.
struct Crossover {
  // "measured": between two measured lengths, interpolated on logarithms.
  // "extrapolated": softmax is cheaper at every length both were measured at, up to the longest;
  // the fitted laws meet beyond. "never": the mixer's law grows no slower than softmax's.
  // "unknown": too few lengths to tell.
  std::string basis;
  std::optional<double> seq_len;
  std::string note;
};
Crossover find_crossover(const LatencyLine& mixer, const LatencyLine& softmax);

/// "latency_fit" and "latency_crossover" from the rows of latency.csv with status ok. A line is a
/// label in one implementation and precision on one device and setting; timings of different
/// processors, which only the cells' provenance tells apart, make lines of their own. Each line
/// that is not softmax's has a crossover against every softmax of its setting: the columns
/// baseline, baseline_implementation and baseline_precision name it.
std::vector<Table> summarise_latency(const Table& latency, std::span<const SourcedRow> rows);

}  // namespace vla_bench
