#include "claims/measure.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

using Row = SelectedRows::Row;

[[noreturn]] void refuse_several(const SelectedRows& selected, const std::string& place) {
  std::vector<std::string> differing;
  for (const std::size_t column : differing_columns(selected)) {
    differing.push_back(selected.table->columns[column]);
  }
  throw BadInput(
      fmt::format("{}: {} rows of {} match; expected one, or \"min\" or \"max\" of them. They "
                  "differ in {}",
                  place, selected.rows.size(), selected.table->name, fmt::join(differing, ", ")));
}

/// Sets the interval that the row has for the column.
void set_interval(Measurement& measured, const Table& table, const Row& row, std::size_t column) {
  constexpr std::string_view kMean = "_mean";
  std::string quantity = table.columns[column];
  if (quantity.ends_with(kMean)) quantity.resize(quantity.size() - kMean.size());
  const auto low = table.find_column(quantity + "_low");
  const auto high = table.find_column(quantity + "_high");
  if (low && high) {
    measured.low = number(row[*low]);
    measured.high = number(row[*high]);
    return;
  }
  const auto relative_error = table.find_column(Columns::relative_error);
  if (quantity != Columns::median_s.name || !relative_error) return;
  const auto half = number(row[*relative_error]);
  const auto median = number(row[column]);
  if (!half || !median) return;
  measured.low = std::max(0.0, *median * (1.0 - *half));
  measured.high = *median * (1.0 + *half);
}

Measurement of_row(const Table& table, const Row& row, std::size_t column) {
  Measurement measured{.value = row[column]};
  set_interval(measured, table, row, column);
  if (const auto cells = table.find_column(Columns::cells))
    measured.cells = readable_text(row[*cells]);
  return measured;
}

Measurement extreme_of(const SelectedRows& selected, std::size_t column, bool largest) {
  const Row* best = nullptr;
  Index without_number = 0;
  for (const Row* row : selected.rows) {
    const auto value = number((*row)[column]);
    if (!value || std::isnan(*value)) {
      ++without_number;
      continue;
    }
    const int order = best == nullptr ? 0 : compare((*row)[column], (*best)[column]);
    if (best == nullptr || (largest ? order > 0 : order < 0)) best = row;
  }
  Measurement measured = best == nullptr ? Measurement{} : of_row(*selected.table, *best, column);
  measured.without_number = without_number;
  return measured;
}

}  // namespace

Measurement measure(const SelectedRows& rows, const Selection& selection,
                    const std::string& place) {
  const std::size_t column = rows.table->column(selection.column, place);
  if (selection.statistic != Reduction::row) {
    return extreme_of(rows, column, selection.statistic == Reduction::max);
  }
  if (rows.rows.size() > 1) refuse_several(rows, place);
  return of_row(*rows.table, *rows.rows.front(), column);
}

Measurement ratio(const Measurement& a, const Measurement& b) {
  Measurement quotient{.without_number = a.without_number + b.without_number};
  quotient.cells = a.cells == b.cells ? a.cells : fmt::format("{} over {}", a.cells, b.cells);
  const auto above = number(a.value);
  const auto below = number(b.value);
  if (!above || !below || *below == 0.0) return quotient;
  quotient.value = *above / *below;
  if (!(*above > 0.0) || !(*below > 0.0) || !a.low || !a.high || !b.low || !b.high) return quotient;
  const auto factor = [](double x, double y) {
    return std::exp(std::hypot(std::log(x), std::log(y)));
  };
  quotient.low = *above / *below / factor(*above / *a.low, *b.high / *below);
  quotient.high = *above / *below * factor(*a.high / *above, *below / *b.low);
  return quotient;
}

}  // namespace vla_bench
