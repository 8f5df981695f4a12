#include "report/summary_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "config/enums.h"

namespace vla_bench {

void append_quantity_columns(std::vector<std::string>& columns,
                             std::initializer_list<Column> quantities) {
  for (const Column& quantity : quantities) {
    for (const char* suffix : {"_mean", "_sd", "_low", "_high"}) {
      columns.push_back(quantity + suffix);
    }
  }
}

void append_quantity(std::vector<Value>& row, std::span<const double> observations,
                     double least_variance, Interval range) {
  const Statistics spread = statistics(observations);
  const std::optional<Interval> interval = mean_interval_95(spread, least_variance, range);
  std::optional<double> mean, deviation, low, high;
  if (spread.count >= 1) mean = spread.mean;
  if (spread.count >= 2) deviation = spread.standard_deviation;
  if (interval) {
    low = interval->low;
    high = interval->high;
  }
  for (const std::optional<double> number : {mean, deviation, low, high}) {
    row.push_back(value_of(number));
  }
}

void append_fraction(std::vector<Value>& row, std::span<const double> observations, double draws) {
  const double mean = statistics(observations).mean;
  append_quantity(row, observations, fraction_variance(mean, draws), kFractions);
}

void append_rounded(std::vector<Value>& row, std::span<const double> observations,
                    std::string_view precision, Interval range) {
  // Zero is known to the smallest number that is not.
  const double size =
      std::max<double>(std::abs(statistics(observations).mean), std::numeric_limits<float>::min());
  const double rounding = unit_roundoff(precision) * size;
  append_quantity(row, observations, rounding * rounding, range);
}

double unit_roundoff(std::string_view precision) {
  if (precision == enum_name(Precision::float32)) return 0x1p-24;
  if (precision == enum_name(Precision::tf32)) return 0x1p-11;
  if (precision == enum_name(Precision::bf16)) return 0x1p-8;
  return 0x1p-53;  // float64
}

std::vector<double> first_numbers(std::span<const CellRecord* const> cells, const Schema& schema,
                                  const Column& column, std::string_view slice) {
  const Value wanted = text_value(std::string(slice));
  std::vector<double> numbers;
  for (const CellRecord* cell : cells) {
    const Table* table = cell->table(schema.name);
    if (table == nullptr) continue;
    const auto is_wanted = [&](const std::vector<Value>& row) {
      return slice.empty() || compare(row[table->column(Columns::slice)], wanted) == 0;
    };
    const auto row = std::find_if(table->rows.begin(), table->rows.end(), is_wanted);
    if (row == table->rows.end()) continue;
    if (const auto value = number((*row)[table->column(column)])) numbers.push_back(*value);
  }
  return numbers;
}

std::vector<std::string> summary_columns(std::span<const Column> keys,
                                         std::vector<std::string> measured,
                                         std::initializer_list<Column> along) {
  std::vector<std::string> columns = {std::string(Columns::line)};
  columns.insert(columns.end(), keys.begin(), keys.end());
  columns.emplace_back(Columns::setting);
  columns.insert(columns.end(), along.begin(), along.end());
  columns.insert(columns.end(), {std::string(Columns::cells), std::string(Columns::not_ok)});
  columns.insert(columns.end(), measured.begin(), measured.end());
  columns.insert(columns.end(), {std::string(Columns::note), std::string(Columns::config)});
  return columns;
}

std::vector<Value> summary_row(const SummaryRow& row) {
  std::vector<Value> values = {row.name.line};
  values.insert(values.end(), row.keys.begin(), row.keys.end());
  values.push_back(text_value(row.name.setting));
  values.insert(values.end(), row.along.begin(), row.along.end());
  values.insert(values.end(), {row.cells, text_value(not_ok_text(row.states))});
  values.insert(values.end(), row.measured.begin(), row.measured.end());
  values.insert(values.end(), {text_value(row.note), row.config});
  return values;
}

void SortedRows::add(std::vector<Value> key, std::vector<std::vector<Value>> rows) {
  groups_.emplace_back(std::move(key), std::move(rows));
}

Table SortedRows::take(std::string name, std::vector<std::string> columns) {
  std::stable_sort(groups_.begin(), groups_.end(),
                   [](const auto& a, const auto& b) { return RowLess()(a.first, b.first); });
  Table table;
  table.name = std::move(name);
  table.columns = std::move(columns);
  for (auto& [key, rows] : groups_) {
    for (std::vector<Value>& row : rows) table.add(std::move(row));
  }
  groups_.clear();
  return table;
}

}  // namespace vla_bench
