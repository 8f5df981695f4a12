#include "report/training_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "config/read.h"
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

/// Which cells stopped before train.steps, and after how many; empty when none did.
std::string stopped_note(std::span<const CellRecord* const> cells) {
  Index stopped = 0;
  Index first = 0;
  Index last = 0;
  for (const CellRecord* cell : cells) {
    const std::vector<double> steps =
        first_numbers(std::span(&cell, 1), Training::table(), Columns::steps);
    const TrainConfig& train = cell->config.train;
    if (train.stop_accuracy == 0.0 || steps.empty()) continue;
    if (steps[0] >= static_cast<double>(train.steps)) continue;
    const auto own = static_cast<Index>(steps[0]);
    first = stopped == 0 ? own : std::min(first, own);
    last = std::max(last, own);
    ++stopped;
  }
  if (stopped == 0) return "";
  return fmt::format("reached train.stop_accuracy: {} after {} steps",
                     cells_text(static_cast<std::size_t>(stopped), cells.size()),
                     first == last ? std::to_string(first) : fmt::format("{} to {}", first, last));
}

/// Whether a row of that slice stands for the whole training.
bool is_whole(std::string_view slice) { return slice.empty() || slice == kMeanSlice; }

/// left_plateau, plateau_step_median, _min and _max; empty where no learning curve has a plateau.
void append_plateau(std::vector<Value>& measured, std::span<const CellRecord* const> cells) {
  std::size_t known = 0;
  std::vector<double> steps;
  for (const CellRecord* cell : cells) {
    if (!cell->plateau) continue;
    ++known;
    if (cell->plateau->left) steps.push_back(static_cast<double>(*cell->plateau->left));
  }
  measured.push_back(known == 0 ? Value() : Value(cells_text(steps.size(), known)));
  for (const double q : {0.5, 0.0, 1.0}) {
    measured.push_back(steps.empty() ? Value() : Value(quantile(steps, q)));
  }
}

/// A slice of the summary's rows: its name, and the config of its columns.
using Part = std::pair<std::string, RunConfig>;

/// The mean of slices and every slice, or all that there is.
std::vector<Part> parts_of(const RunConfig& config) {
  std::vector<Part> parts;
  if (has_slices(config)) parts.emplace_back(kMeanSlice, config);
  for (Slice& slice : eval_slices(config)) {
    parts.emplace_back(std::move(slice.name), std::move(slice.config));
  }
  return parts;
}

/// Evaluated queries; of the mean of slices, which have equal weights, the number of draws with the
/// variance of that mean.
double draws_of(const RunConfig& config) {
  const auto queries = [](const RunConfig& one) {
    return *number(column_of(one, Columns::queries));
  };
  if (!has_slices(config)) return queries(config);
  const std::vector<Slice> slices = eval_slices(config);
  double inverse = 0.0;
  for (const Slice& slice : slices) inverse += 1.0 / queries(slice.config);
  return static_cast<double>(slices.size() * slices.size()) / inverse;
}

/// The same for eval.probe_sequences of an evaluation's sequences.
double probe_draws_of(const RunConfig& config) {
  const EvalConfig& eval = config.eval;
  return draws_of(config) * static_cast<double>(eval.probe_sequences) /
         static_cast<double>(eval.batches * eval.batch);
}

/// `extras`: the columns that the table has besides; the slice is the last of the keys.
std::vector<Value> accuracy_row(const CellGroup& group, const LineName& name, const Part& part,
                                const Training::Extras& extras) {
  const auto [states, ok] = ends_of(group);
  const auto numbers = [&ok_cells = ok, &part](const Column& column) {
    return first_numbers(ok_cells, Training::table(), column, part.first);
  };
  const RunConfig& config = part.second;
  const std::string notes[] = {versions_note(states), times_note(ok), stopped_note(ok)};

  std::vector<Value> measured;
  append_fraction(measured, numbers(Columns::accuracy), draws_of(config));
  const std::vector<double> losses = numbers(Columns::loss);
  append_rounded(measured, losses, computed_in(config), kNotNegative);
  measured.push_back(losses.empty() ? Value() : Value(quantile(losses, 0.5)));
  append_plateau(measured, is_whole(part.first) ? ok : std::vector<const CellRecord*>());
  append_rounded(measured,
                 notes[1].empty() ? numbers(Columns::train_seconds) : std::vector<double>(),
                 "float64", kNotNegative);
  for (const Column& size : kSizes) measured.push_back(column_of(config, size));
  if (extras.probe_accuracy) {
    append_fraction(measured, numbers(Columns::probe_accuracy), probe_draws_of(config));
  }
  std::vector<Value> keys = training_keys(config);
  if (extras.slice) keys.push_back(text_value(part.first));
  return summary_row({.name = name,
                      .keys = std::move(keys),
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
  constexpr Column kPlaces[] = {Columns::experiment, Columns::n_pairs, Columns::d_h,
                                Columns::n_heads,    Columns::seq_len, Columns::layout,
                                Columns::short_conv, Columns::device,  Columns::precision};
  const RunConfig& config = group.config();
  NamedCells cells{.label = group.label, .hash = group.hash, .config = &config};
  for (const Part& part : parts_of(config)) {
    cells.places.push_back(columns_of(part.second, kPlaces));
  }
  const TrainSizes sizes(config);  // of the learning curves
  for (const RunConfig& sized : sizes.configs()) {
    cells.places.push_back(columns_of(sized, kPlaces));
  }
  return cells;
}

std::vector<LineName> name_trainings(std::span<const NamedCells> groups) {
  static const ShownKeys shown{.keys = {"experiment", "device", "precision", "mixer.mixer",
                                        "task.n_pairs", "model.d_h", "model.n_heads",
                                        "task.seq_len", "task.layout", "model.short_conv",
                                        "train.steps", "train.lr"}};
  return name_lines(groups, shown);
}

Training::Extras Training::extras_of(std::span<const CellGroup> groups) {
  Extras all;
  for (const CellGroup& group : groups) {
    const Extras own = extras_of(group.config());
    all.slice = all.slice || own.slice;
    all.probe_accuracy = all.probe_accuracy || own.probe_accuracy;
  }
  return all;
}

std::vector<Table> Training::summarise(std::span<const CellGroup> groups) {
  std::vector<NamedCells> named;
  for (const CellGroup& group : groups) named.push_back(named_training(group));
  const std::vector<LineName> names = name_trainings(named);
  const Extras extras = extras_of(groups);
  SortedRows rows;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::vector<std::vector<Value>> own;
    for (const Part& part : parts_of(groups[i].config())) {
      own.push_back(accuracy_row(groups[i], names[i], part, extras));
    }
    rows.add(line_order(names[i], named[i]), std::move(own));
  }
  std::vector<Column> keys(std::begin(kTrainingKeys), std::end(kTrainingKeys));
  if (extras.slice) keys.push_back(slice);
  std::vector<std::string> measured;
  append_quantity_columns(measured, {accuracy, loss});
  for (const Column& column :
       {loss_median, left_plateau, plateau_step_median, plateau_step_min, plateau_step_max}) {
    measured.emplace_back(column);
  }
  append_quantity_columns(measured, {train_seconds});
  for (const Column& size : kSizes) measured.emplace_back(size);
  if (extras.probe_accuracy) append_quantity_columns(measured, {probe_accuracy});
  return {rows.take("accuracy_summary", summary_columns(keys, std::move(measured)))};
}

}  // namespace vla_bench
