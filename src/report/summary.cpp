#include "report/summary.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

#include "report/cell_columns.h"
#include "report/grouping.h"
#include "report/latency_summary.h"
#include "report/probe_summary.h"
#include "report/recall_summary.h"
#include "report/training_summary.h"

namespace vla_bench {
namespace {

using Cells = std::vector<const CellRecord*>;

/// The rows of all cells, each with its cell's group behind it.
Table raw_table(std::span<const CellGroup> groups, const Schema& schema) {
  Table raw(schema);
  raw.columns.emplace_back("config");
  for (const CellGroup& group : groups) {
    for (const CellRecord* cell : group.cells) {
      const Table* table = cell->table(schema.name);
      if (table == nullptr) continue;
      for (const std::vector<Value>& stored : table->rows) {
        std::vector<Value> row;
        row.reserve(raw.columns.size());
        row = stored;
        row.emplace_back(group.hash);
        raw.add(std::move(row));
      }
    }
  }
  std::sort(raw.rows.begin(), raw.rows.end(), RowLess());
  return raw;
}

}  // namespace

std::vector<Table> gather_tables(std::span<const CellRecord> cells) {
  using Groups = std::span<const CellGroup>;
  const std::pair<const Schema&, std::function<std::vector<Table>(Groups)>> kinds[] = {
      {accuracy_schema(), [](Groups groups) { return std::vector{summarise_accuracy(groups)}; }},
      {recall_schema(), [](Groups groups) { return std::vector{summarise_recall(groups)}; }},
      {state_norm_schema(), summarise_state_norm},
      {jacobian_schema(), summarise_jacobian},
      {latency_schema(), summarise_latency},
  };
  std::vector<Table> tables;
  for (const auto& [schema, summarise] : kinds) {
    Cells own;
    for (const CellRecord& cell : cells) {
      if (experiment_schema(cell.config.experiment).name == schema.name) own.push_back(&cell);
    }
    if (own.empty()) continue;
    const bool timings = schema.name == latency_schema().name;
    const std::vector<CellGroup> groups =
        group_cells(own, timings ? Machines::apart : Machines::together);
    tables.push_back(raw_table(groups, schema));
    std::vector<Table> summaries = summarise(groups);
    std::move(summaries.begin(), summaries.end(), std::back_inserter(tables));
  }
  return tables;
}

}  // namespace vla_bench
