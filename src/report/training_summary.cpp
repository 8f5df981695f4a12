#include "report/training_summary.h"

#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "config/read.h"
#include "report/cell_columns.h"
#include "report/quantities.h"
#include "report/sorted_rows.h"

namespace vla_bench {
namespace {

/// Columns that are axes or panels of a figure: what differs there is no other line.
constexpr std::string_view kPlaces[] = {"experiment", "n_pairs",    "d_h",    "n_heads",  "seq_len",
                                        "layout",     "short_conv", "device", "precision"};

/// Why the cells' times do not compare; empty when they do.
std::string times_note(std::span<const CellRecord* const> cells) {
  std::set<std::tuple<std::string_view, std::string_view, std::string_view>> places;
  for (const CellRecord* cell : cells) {
    const Provenance& facts = cell->provenance;
    places.emplace(ran_on(cell->config, facts), facts.fact("threads"), facts.fact("jobs"));
  }
  if (places.size() < 2) return "";
  return "train_seconds: ran on several processors, or with several numbers of threads or jobs";
}

std::vector<Value> accuracy_row(const CellGroup& group, const LineName& name) {
  const auto [states, ok] = ends_of(group);
  const auto numbers = [&ok_cells = ok](std::string_view column) {
    return first_numbers(ok_cells, accuracy_schema(), column);
  };
  const RunConfig& config = group.config();
  const std::string notes[] = {versions_note(states), times_note(ok)};

  std::vector<Value> row = {name.line};
  for (Value& value : training_values(config)) row.push_back(std::move(value));
  row.insert(row.end(),
             {text_value(name.setting), cells_text(states), text_value(not_ok_text(states))});
  append_fraction(row, numbers("accuracy"), *number(column_of(config, "queries")));
  const std::vector<double> losses = numbers("loss");
  append_rounded(row, losses, computed_in(config), kNotNegative);
  row.push_back(losses.empty() ? Value() : Value(quantile(losses, 0.5)));
  append_rounded(row, notes[1].empty() ? numbers("train_seconds") : std::vector<double>(),
                 "float64", kNotNegative);
  row.insert(row.end(), {text_value(joined_notes(notes)), group.hash});
  return row;
}

}  // namespace

const std::vector<std::string>& training_columns() {
  static const std::vector<std::string> columns = {
      "experiment", "label",      "mixer", "n_pairs",       "d_h",    "n_heads",  "seq_len",
      "layout",     "short_conv", "steps", "learning_rate", "device", "precision"};
  return columns;
}

std::vector<Value> training_values(const RunConfig& config) {
  std::vector<Value> values;
  for (const std::string& column : training_columns()) {
    // The steps that were asked for: a run that diverged did fewer.
    values.push_back(column == "steps" ? Value(config.train.steps) : column_of(config, column));
  }
  return values;
}

std::vector<LineName> name_trainings(std::span<const NamedCells> groups) {
  static const ShownKeys shown{.keys = {"experiment", "device", "precision", "mixer.mixer",
                                        "task.n_pairs", "model.d_h", "model.n_heads",
                                        "task.seq_len", "task.layout", "model.short_conv",
                                        "train.steps", "train.lr"}};
  return name_lines(groups, shown);
}

NamedCells named_training(std::string label, std::string hash, const RunConfig& config) {
  NamedCells named{.label = std::move(label), .hash = std::move(hash), .config = &config};
  std::vector<Value>& place = named.places.emplace_back();
  for (const std::string_view column : kPlaces) place.push_back(column_of(config, column));
  return named;
}

std::vector<Value> training_order(const LineName& name, const NamedCells& cells) {
  std::vector<Value> order = {cells.label};
  order.insert(order.end(), name.order.begin(), name.order.end());
  order.emplace_back(name.line);
  order.insert(order.end(), cells.places[0].begin(), cells.places[0].end());
  order.emplace_back(cells.hash);
  return order;
}

Table summarise_accuracy(std::span<const CellGroup> groups) {
  std::vector<NamedCells> named;
  for (const CellGroup& group : groups) {
    named.push_back(named_training(group.label, group.hash, group.config()));
  }
  const std::vector<LineName> names = name_trainings(named);
  SortedRows rows;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    rows.add(training_order(names[i], named[i]), {accuracy_row(groups[i], names[i])});
  }
  std::vector<std::string> columns = {"line"};
  columns.insert(columns.end(), training_columns().begin(), training_columns().end());
  columns.insert(columns.end(), {"setting", "cells", "not_ok"});
  append_quantity_columns(columns, {"accuracy", "loss"});
  columns.emplace_back("loss_median");
  append_quantity_columns(columns, {"train_seconds"});
  columns.insert(columns.end(), {"note", "config"});
  return rows.take("accuracy_summary", std::move(columns));
}

}  // namespace vla_bench
