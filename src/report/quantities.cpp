#include "report/quantities.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "config/enums.h"
#include "report/grouping.h"

namespace vla_bench {

void append_quantity_columns(std::vector<std::string>& columns,
                             std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    for (const char* suffix : {"_mean", "_sd", "_low", "_high"}) {
      columns.push_back(std::string(name) + suffix);
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
                                  std::string_view column) {
  const std::size_t at = Table(schema).column(column);
  std::vector<double> numbers;
  for (const CellRecord* cell : cells) {
    const Table* table = cell->table(schema.name);
    if (table == nullptr || table->rows.empty()) continue;
    if (const auto value = number(table->rows.front()[at])) numbers.push_back(*value);
  }
  return numbers;
}

}  // namespace vla_bench
