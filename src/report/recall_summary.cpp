#include "report/recall_summary.h"

#include <string>
#include <string_view>
#include <vector>

#include "report/cell_columns.h"
#include "report/lines.h"
#include "report/quantities.h"
#include "report/sorted_rows.h"

namespace vla_bench {
namespace {

constexpr std::string_view kColumns[] = {"label", "mixer", "d_h", "n_pairs", "trials", "precision"};

/// The last numbers of `row` (low, high) become those of the trials of its only seed.
void take_interval_of_trials(std::vector<Value>& row, const CellRecord& cell) {
  const Table& table = *cell.table(recall_schema().name);
  row[row.size() - 2] = table.rows.front()[table.column("low")];
  row[row.size() - 1] = table.rows.front()[table.column("high")];
}

std::vector<Value> recall_row(const CellGroup& group, const LineName& name) {
  const auto [states, ok] = ends_of(group);
  const RunConfig& config = group.config();
  const std::vector<double> accuracies = first_numbers(ok, recall_schema(), "accuracy");
  std::vector<Value> row = {name.line};
  for (const std::string_view column : kColumns) row.push_back(column_of(config, column));
  row.insert(row.end(),
             {text_value(name.setting), cells_text(states), text_value(not_ok_text(states))});
  append_fraction(row, accuracies, static_cast<double>(config.recall.trials * config.task.n_pairs));
  Value over;
  if (accuracies.size() == 1) {
    take_interval_of_trials(row, *ok.front());
    if (row.back() != Value()) over = std::string("trials");
  } else if (!accuracies.empty()) {
    over = std::string("seeds");
  }
  row.push_back(std::move(over));
  row.insert(row.end(), {text_value(versions_note(states)), group.hash});
  return row;
}

}  // namespace

Table summarise_recall(std::span<const CellGroup> groups) {
  std::vector<NamedCells> named;
  for (const CellGroup& group : groups) {
    const RunConfig& config = group.config();
    std::vector<Value> place = {column_of(config, "d_h"), column_of(config, "n_pairs"),
                                column_of(config, "precision")};
    named.push_back({.label = group.label,
                     .hash = group.hash,
                     .config = &config,
                     .places = {std::move(place)}});
  }
  const std::vector<LineName> names = name_lines(
      named, {.keys = {"mixer.mixer", "model.d_h", "task.n_pairs", "recall.trials", "precision"}});
  SortedRows rows;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::vector<Value> order = {groups[i].label};
    order.insert(order.end(), names[i].order.begin(), names[i].order.end());
    order.emplace_back(names[i].line);
    order.insert(order.end(), named[i].places[0].begin(), named[i].places[0].end());
    order.emplace_back(groups[i].hash);
    rows.add(std::move(order), {recall_row(groups[i], names[i])});
  }
  std::vector<std::string> columns = {"line"};
  columns.insert(columns.end(), std::begin(kColumns), std::end(kColumns));
  columns.insert(columns.end(), {"setting", "cells", "not_ok"});
  append_quantity_columns(columns, {"accuracy"});
  columns.insert(columns.end(), {"interval_over", "note", "config"});
  return rows.take("recall_summary", std::move(columns));
}

}  // namespace vla_bench
