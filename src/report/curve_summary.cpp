#include "report/curve_summary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "config/read.h"
#include "experiments/list.h"
#include "report/grouping.h"
#include "report/summary_rows.h"
#include "report/training_summary.h"

namespace vla_bench {
namespace {

struct CurvePoint {
  Index step = 0;
  double accuracy = 0.0;  // NaN: none
  double loss = 0.0;
};

using Curve = std::vector<CurvePoint>;

Table empty_table() {
  std::vector<std::string> measured;
  append_quantity_columns(measured, {Columns::accuracy, Columns::loss});
  Table table;
  table.name = "history_curve";
  table.columns = summary_columns(kTrainingKeys, std::move(measured), {Columns::step});
  return table;
}

}  // namespace

struct CurveSummary::Group {
  CellGroup cells;
  std::vector<Curve> curves;  // of the cells
  LineName name{};
  std::vector<Value> order{};
  std::vector<CellEnd> states{};

  void append_rows(Table& table) const;
};

CurveSummary::~CurveSummary() = default;

CurveSummary::CurveSummary(std::span<const CellRecord> records) {
  std::vector<const CellRecord*> trainings;
  for (const CellRecord& record : records) {
    if (trains(record.config.experiment)) trainings.push_back(&record);
  }
  for (CellGroup& cells : group_cells(trainings)) {
    groups_.push_back({.cells = std::move(cells), .curves = {}});
  }
  std::vector<NamedCells> named;
  for (const Group& group : groups_) named.push_back(named_training(group.cells));
  std::vector<LineName> names = name_trainings(named);
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    groups_[i].name = std::move(names[i]);
    groups_[i].order = line_order(groups_[i].name, named[i]);
  }
  std::stable_sort(groups_.begin(), groups_.end(),
                   [](const Group& a, const Group& b) { return RowLess()(a.order, b.order); });
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    Group& group = groups_[i];
    group.curves.resize(group.cells.cells.size());
    for (std::size_t cell = 0; cell < group.cells.cells.size(); ++cell) {
      const CellRecord& record = *group.cells.cells[cell];
      group.states.push_back(state_of(record));
      places_[record.hash] = {i, cell};
    }
  }
}

void CurveSummary::add(const CellRecord& record, const Table& history) {
  const auto place = places_.find(record.hash);
  if (place == places_.end() || history.rows.empty() || !state_of(record).ok()) return;
  const std::size_t step = history.column(Columns::step);
  const std::size_t loss = history.column(Columns::loss);
  const std::size_t accuracy = history.column(Columns::accuracy);
  Curve curve;
  for (const std::vector<Value>& row : history.rows) {
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    const auto at = number(row[step]);
    const auto lost = number(row[loss]);
    if (!at || !lost || !std::isfinite(*lost)) continue;
    curve.push_back({std::llround(*at), number(row[accuracy]).value_or(kNone), *lost});
  }
  const auto [group, cell] = place->second;
  curve.shrink_to_fit();
  groups_[group].curves[cell] = std::move(curve);
}

void CurveSummary::Group::append_rows(Table& table) const {
  struct Measured {
    std::vector<double> accuracies, losses;
  };
  // By step and size: at one step seeds may have different sizes (segment_order).
  std::map<std::pair<Index, std::size_t>, Measured> points;
  for (std::size_t cell = 0; cell < curves.size(); ++cell) {
    TrainSizes sizes(cells.cells[cell]->config);
    for (const CurvePoint& point : curves[cell]) {
      Measured& measured = points[{point.step, sizes.at(std::max<Index>(point.step - 1, 0))}];
      measured.losses.push_back(point.loss);
      if (!std::isnan(point.accuracy)) measured.accuracies.push_back(point.accuracy);
    }
  }
  const TrainSizes sizes(cells.config());
  SummaryRow row{
      .name = name, .states = states, .note = versions_note(states), .config = cells.hash};
  for (const auto& [point, measured] : points) {
    const RunConfig& config = sizes.configs()[point.second];
    const double draws = static_cast<double>(config.train.batch * targets_per_row(config));
    row.keys = training_keys(config);
    row.along = {point.first};
    row.cells = cells_text(measured.losses.size(), states.size());
    row.measured.clear();
    append_fraction(row.measured, measured.accuracies, draws);
    append_rounded(row.measured, measured.losses, computed_in(config), kNotNegative);
    table.add(summary_row(row));
  }
}

Table CurveSummary::table() const {
  Table table = empty_table();
  for (const Group& group : groups_) group.append_rows(table);
  return table;
}

void CurveSummary::each_group(const std::function<void(const Table&)>& take) const {
  for (const Group& group : groups_) {
    Table table = empty_table();
    group.append_rows(table);
    take(table);
  }
}

}  // namespace vla_bench
