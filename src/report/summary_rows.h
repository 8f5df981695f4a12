// Rows of summaries: measured quantities (mean over cells, spread, interval), and sorted rows.
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

/// Appends mean, sample standard deviation and the 95% interval of `observations`, one per seed
/// (see mean_interval_95); values that too few observations leave undefined are empty.
void append_quantity(std::vector<Value>& row, std::span<const double> observations,
                     double least_variance, Interval range);

/// The same for a fraction of `draws` draws per observation.
void append_fraction(std::vector<Value>& row, std::span<const double> observations, double draws);

/// The same for numbers computed in `precision`, whose rounding is the least deviation.
void append_rounded(std::vector<Value>& row, std::span<const double> observations,
                    std::string_view precision, Interval range);

/// Half the distance from 1 to the next larger number: 2^-24 in float32.
double unit_roundoff(std::string_view precision);

/// The number in one column of each cell's table, in its first row, or in the first that has
/// `slice` in that column; omits cells without one.
std::vector<double> first_numbers(std::span<const CellRecord* const> cells, const Schema& schema,
                                  const Column& column, std::string_view slice = "");

/// line, `keys`, setting, `along`, cells, not_ok, `measured`, note, config.
std::vector<std::string> summary_columns(std::span<const Column> keys,
                                         std::vector<std::string> measured,
                                         std::initializer_list<Column> along = {});
/// The values of a row in those columns.
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

/// Collects the rows of groups and returns them as a table, in the order of the groups' keys.
class SortedRows {
 public:
  /// Adds the rows of one group, which keep their order.
  void add(std::vector<Value> key, std::vector<std::vector<Value>> rows);
  /// Returns the table and leaves this object empty.
  Table take(std::string name, std::vector<std::string> columns);

 private:
  std::vector<std::pair<std::vector<Value>, std::vector<std::vector<Value>>>> groups_;
};

}  // namespace vla_bench
