// Rows of summaries: measured quantities (mean over cells, spread, interval), and rows put in
// order.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/statistics.h"
#include "report/grouping.h"
#include "report/lines.h"
#include "report/record.h"
#include "report/table.h"

namespace vla_bench {

/// Appends <name>_mean, _sd, _low and _high for each quantity.
void append_quantity_columns(std::vector<std::string>& columns,
                             std::initializer_list<Column> quantities);

/// Appends mean, sample standard deviation and the 95% interval of `observations`, one a seed (see
/// mean_interval_95); what their number leaves undefined stays empty.
void append_quantity(std::vector<Value>& row, std::span<const double> observations,
                     double least_variance, Interval range);

/// The same for a fraction of `draws` draws an observation.
void append_fraction(std::vector<Value>& row, std::span<const double> observations, double draws);

/// The same for numbers computed in `precision`: an observation varies by its rounding at the
/// least.
void append_rounded(std::vector<Value>& row, std::span<const double> observations,
                    std::string_view precision, Interval range);

/// Half the distance from 1 to the next larger number: 2^-24 in float32.
double unit_roundoff(std::string_view precision);

/// The number in one column of the first row of each cell's table; cells without one are left out.
std::vector<double> first_numbers(std::span<const CellRecord* const> cells, const Schema& schema,
                                  const Column& column);

/// line, `keys`, setting, `along`, cells, not_ok, `measured`, note, config.
std::vector<std::string> summary_columns(std::span<const Column> keys,
                                         std::vector<std::string> measured,
                                         std::initializer_list<Column> along = {});
/// What a row has in those columns.
struct SummaryRow {
  const LineName& name;
  std::vector<Value> keys;
  std::vector<Value> along{};
  std::string cells;                // "3 of 5"
  std::span<const CellEnd> states;  // of all cells of the group
  std::vector<Value> measured;
  std::string note;
  std::string config;  // the group's hash
};
std::vector<Value> summary_row(const SummaryRow& row);

/// Collects the rows of groups and gives them back as a table, in the order of the groups' keys.
class SortedRows {
 public:
  /// The rows of one group, which keep their order.
  void add(std::vector<Value> key, std::vector<std::vector<Value>> rows);
  /// Leaves this empty.
  Table take(std::string name, std::vector<std::string> columns);

 private:
  std::vector<std::pair<std::vector<Value>, std::vector<std::vector<Value>>>> groups_;
};

}  // namespace vla_bench
