// A measured quantity in a summary: its mean over cells, their spread, and an interval.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/statistics.h"
#include "report/record.h"
#include "report/table.h"

namespace vla_bench {

/// Appends <name>_mean, _sd, _low and _high for each name.
void append_quantity_columns(std::vector<std::string>& columns,
                             std::initializer_list<std::string_view> names);

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
                                  std::string_view column);

}  // namespace vla_bench
