#include "report/training_summary.h"

#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "experiments/declaration.h"
#include "report/cell_columns.h"
#include "report/grouping.h"
#include "report/summary_rows.h"

namespace vla_bench {
namespace {

/// Of the model, the same for all cells of a group.
constexpr Column kSizes[] = {Columns::state_bytes, Columns::conv_state_bytes};

/// The reason why the cells' times are not comparable; empty when they are.
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
  const auto numbers = [&ok_cells = ok](const Column& column) {
    return first_numbers(ok_cells, Training::table(), column);
  };
  const RunConfig& config = group.config();
  const std::string notes[] = {versions_note(states), times_note(ok)};

  std::vector<Value> measured;
  append_fraction(measured, numbers(Columns::accuracy),
                  *number(column_of(config, Columns::queries)));
  const std::vector<double> losses = numbers(Columns::loss);
  append_rounded(measured, losses, computed_in(config), kNotNegative);
  measured.push_back(losses.empty() ? Value() : Value(quantile(losses, 0.5)));
  append_rounded(measured,
                 notes[1].empty() ? numbers(Columns::train_seconds) : std::vector<double>(),
                 "float64", kNotNegative);
  for (const Column& size : kSizes) measured.push_back(column_of(config, size));
  return summary_row({.name = name,
                      .keys = training_keys(config),
                      .cells = cells_text(states),
                      .states = states,
                      .measured = std::move(measured),
                      .note = joined_notes(notes),
                      .config = group.hash});
}

}  // namespace

std::vector<Value> training_keys(const RunConfig& config) {
  std::vector<Value> values;
  for (const Column& column : kTrainingKeys) {
    values.push_back(column.name == Columns::steps.name ? Value(config.train.steps)
                                                        : column_of(config, column));
  }
  return values;
}

NamedCells named_training(const CellGroup& group) {
  return named_cells(group, {Columns::experiment, Columns::n_pairs, Columns::d_h, Columns::n_heads,
                             Columns::seq_len, Columns::layout, Columns::short_conv,
                             Columns::device, Columns::precision});
}

std::vector<LineName> name_trainings(std::span<const NamedCells> groups) {
  static const ShownKeys shown{.keys = {"experiment", "device", "precision", "mixer.mixer",
                                        "task.n_pairs", "model.d_h", "model.n_heads",
                                        "task.seq_len", "task.layout", "model.short_conv",
                                        "train.steps", "train.lr"}};
  return name_lines(groups, shown);
}

std::vector<Table> Training::summarise(std::span<const CellGroup> groups) {
  std::vector<NamedCells> named;
  for (const CellGroup& group : groups) named.push_back(named_training(group));
  const std::vector<LineName> names = name_trainings(named);
  SortedRows rows;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    rows.add(line_order(names[i], named[i]), {accuracy_row(groups[i], names[i])});
  }
  std::vector<std::string> measured;
  append_quantity_columns(measured, {accuracy, loss});
  measured.emplace_back(loss_median);
  append_quantity_columns(measured, {train_seconds});
  for (const Column& size : kSizes) measured.emplace_back(size);
  return {rows.take("accuracy_summary", summary_columns(kTrainingKeys, std::move(measured)))};
}

}  // namespace vla_bench
