#include "report/summary.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "experiments/list.h"
#include "report/grouping.h"
#include "report/stored_table.h"

namespace vla_bench {
namespace {

/// The table with every column that some cell's has.
const Schema& widest(std::span<const CellGroup> groups, const Schema& schema) {
  if (!trains(groups.front().config().experiment)) return schema;
  return Training::table_with(Training::extras_of(groups));
}

Value plateau_step_of(const CellRecord& cell) {
  return cell.plateau && cell.plateau->left ? Value(*cell.plateau->left) : Value();
}

/// The rows of all cells, each with its cell's group as the last column. Those of trainings have
/// plateau_step before it, but only in a cell's first row, which is that of the whole training.
Table raw_table(std::span<const CellGroup> groups, const Schema& schema, bool has_plateau) {
  Table raw(schema);
  const std::vector<std::string> columns = raw.columns;
  if (has_plateau) raw.columns.emplace_back(Columns::plateau_step);
  raw.columns.emplace_back(Columns::config);
  for (const CellGroup& group : groups) {
    for (const CellRecord* cell : group.cells) {
      const Table* table = cell->table(schema.name);
      if (table == nullptr) continue;
      const auto add = [&](const Table& whole) {
        for (const std::vector<Value>& stored : whole.rows) {
          std::vector<Value> row;
          row.reserve(raw.columns.size());
          row = stored;
          if (has_plateau) {
            const bool is_first = &stored == &whole.rows.front();
            row.push_back(is_first ? plateau_step_of(*cell) : Value());
          }
          row.emplace_back(group.hash);
          raw.add(std::move(row));
        }
      };
      if (table->columns == columns) {
        add(*table);
      } else {
        add(as_today(*table, schema, cell->config));
      }
    }
  }
  std::sort(raw.rows.begin(), raw.rows.end(), RowLess());
  return raw;
}

}  // namespace

std::vector<Table> gather_tables(std::span<const CellRecord> cells) {
  std::vector<Table> tables;
  std::set<std::string_view> gathered;  // by the name of the raw table
  Experiments::for_each([&]<class E>() {
    const Schema& schema = E::table();
    if (!gathered.insert(schema.name).second) return;
    std::vector<const CellRecord*> own;
    for (const CellRecord& cell : cells) {
      if (&table_of(cell.config.experiment) == &schema) own.push_back(&cell);
    }
    if (own.empty()) return;
    const std::vector<CellGroup> groups =
        group_cells(own, E::is_timed ? Machines::apart : Machines::together);
    tables.push_back(raw_table(groups, widest(groups, schema), E::trains));
    std::vector<Table> summaries = E::summarise(groups);
    std::move(summaries.begin(), summaries.end(), std::back_inserter(tables));
  });
  return tables;
}

}  // namespace vla_bench
