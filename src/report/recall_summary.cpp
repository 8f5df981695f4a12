// Summaries of training-free recall over seeds.
#include <string>
#include <vector>

#include "experiments/recall.h"
#include "report/cell_columns.h"
#include "report/grouping.h"
#include "report/lines.h"
#include "report/summary_rows.h"

namespace vla_bench {
namespace {

constexpr Column kRecallKeys[] = {Columns::label,   Columns::mixer,  Columns::d_h,
                                  Columns::n_pairs, Columns::trials, Columns::precision};

/// Replaces the last numbers of `measured` (low, high) by those over the trials of its only seed.
void take_interval_of_trials(std::vector<Value>& measured, const CellRecord& cell) {
  const Table& table = *cell.table(Recall::table().name);
  measured[measured.size() - 2] = table.rows.front()[table.column(Columns::low)];
  measured[measured.size() - 1] = table.rows.front()[table.column(Columns::high)];
}

std::vector<Value> recall_row(const CellGroup& group, const LineName& name) {
  const auto [states, ok] = ends_of(group);
  const RunConfig& config = group.config();
  const std::vector<double> accuracies = first_numbers(ok, Recall::table(), Columns::accuracy);
  std::vector<Value> measured;
  append_fraction(measured, accuracies,
                  static_cast<double>(config.recall.trials * config.task.n_pairs));
  Value over;
  if (accuracies.size() == 1) {
    take_interval_of_trials(measured, *ok.front());
    if (measured.back() != Value()) over = std::string("trials");
  } else if (!accuracies.empty()) {
    over = std::string("seeds");
  }
  measured.push_back(std::move(over));
  return summary_row({.name = name,
                      .keys = columns_of(config, kRecallKeys),
                      .cells = cells_text(states),
                      .states = states,
                      .measured = std::move(measured),
                      .note = versions_note(states),
                      .config = group.hash});
}

}  // namespace

std::vector<Table> Recall::summarise(std::span<const CellGroup> groups) {
  std::vector<NamedCells> named;
  for (const CellGroup& group : groups) {
    named.push_back(named_cells(group, {d_h, n_pairs, precision}));
  }
  const std::vector<LineName> names = name_lines(
      named, {.keys = {"mixer.mixer", "model.d_h", "task.n_pairs", "recall.trials", "precision"}});
  SortedRows rows;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    rows.add(line_order(names[i], named[i]), {recall_row(groups[i], names[i])});
  }
  std::vector<std::string> measured;
  append_quantity_columns(measured, {accuracy});
  measured.emplace_back(interval_over);
  return {rows.take("recall_summary", summary_columns(kRecallKeys, std::move(measured)))};
}

}  // namespace vla_bench
