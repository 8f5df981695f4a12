#include "report/stored_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/statistics.h"
#include "experiments/recall.h"
#include "report/cell_columns.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

/// The half width of the interval over trials, around the accuracy.
constexpr std::string_view kHalfWidth = "ci95";

/// Recall's interval by today's formula, from the spread that its stored half width implies.
std::optional<Interval> trials_interval(const Table& stored, const std::vector<Value>& row,
                                        const RunConfig& config) {
  const auto mean = number(row[stored.column(Columns::accuracy)]);
  const auto half = number(row[stored.column(kHalfWidth)]);
  const Index trials = config.recall.trials;
  if (!mean || !half || trials < 2) return std::nullopt;
  const double deviation =
      *half * std::sqrt(static_cast<double>(trials)) / student_t_quantile_975(trials - 1);
  return mean_interval_95({.count = trials, .mean = *mean, .standard_deviation = deviation},
                          fraction_variance(*mean, static_cast<double>(config.task.n_pairs)),
                          kFractions);
}

}  // namespace

Table as_today(const Table& stored, const Schema& schema, const RunConfig& config) {
  const Table today(schema);
  for (const std::string& column : stored.columns) {
    const bool known =
        today.find_column(column) || (column == kHalfWidth && schema.name == Recall::table().name);
    if (!known) throw BadInput(fmt::format("table {} has no column \"{}\"", schema.name, column));
  }
  if (stored.columns == today.columns) return stored;
  Table table(schema);
  for (const std::vector<Value>& row : stored.rows) {
    std::optional<Interval> interval;
    if (stored.find_column(kHalfWidth)) interval = trials_interval(stored, row, config);
    std::vector<Value> values;
    for (const std::string& column : table.columns) {
      if (const auto own = stored.find_column(column)) {
        values.push_back(row[*own]);
      } else if (interval && (column == Columns::low.name || column == Columns::high.name)) {
        values.emplace_back(column == Columns::low.name ? interval->low : interval->high);
      } else {
        values.push_back(column_of(config, column));
      }
    }
    table.add(std::move(values));
  }
  return table;
}

}  // namespace vla_bench
