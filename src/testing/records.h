// Only for tests: sealed cells without a run.
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/read.h"
#include "experiments/list.h"
#include "report/cell_columns.h"
#include "report/record.h"
#include "report/table.h"

namespace vla_bench::testing {

/// All cells of a config, ok and without rows.
inline std::vector<CellRecord> records_of(std::string_view json, Device device = Device::cpu) {
  std::vector<CellRecord> records;
  for (CellConfig& cell : expand_cells(parse_config(json, "test"), device)) {
    records.push_back({.config = std::move(cell.config), .hash = std::move(cell.hash)});
  }
  return records;
}
inline CellRecord record_of(std::string_view json, Device device = Device::cpu) {
  return records_of(json, device).at(0);
}

/// The first cell of a config, with its table.
inline CellRecord record_of(std::string_view json, Table table, Device device = Device::cpu) {
  CellRecord record = record_of(json, device);
  record.run = record.config.name;
  record.place = "runs/" + record.run + "/" + record.hash;
  record.tables.push_back(std::move(table));
  return record;
}

using Values = std::initializer_list<std::pair<std::string_view, Value>>;

/// Adds a row to the record's table: the columns of its config, its outcome, and `values`.
inline void add_row(CellRecord& record, const Schema& schema, Values values) {
  if (record.tables.empty()) record.tables.emplace_back(schema);
  Table& table = record.tables.front();
  std::vector<Value> row;
  for (const std::string& column : table.columns) row.push_back(column_of(record.config, column));
  for (const auto& [column, value] : values) row[table.column(column)] = value;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (table.columns[i] == Columns::status.name && row[i] == Value())
      row[i] = record.outcome.status;
    if (table.columns[i] == Columns::reason.name && row[i] == Value() &&
        !record.outcome.reason.empty()) {
      row[i] = record.outcome.reason;
    }
  }
  table.add(std::move(row));
}

inline const Table& find(const std::vector<Table>& tables, std::string_view name) {
  for (const Table& table : tables) {
    if (table.name == name) return table;
  }
  throw std::runtime_error(fmt::format("no table {}", name));
}

inline Value cell(const Table& table, std::size_t row, std::string_view column) {
  return table.rows.at(row).at(table.column(column));
}
inline std::string text(const Table& table, std::size_t row, std::string_view column) {
  const Value value = cell(table, row, column);
  const auto* found = std::get_if<std::string>(&value);
  return found == nullptr ? "" : *found;
}
inline double real(const Table& table, std::size_t row, std::string_view column) {
  const Value value = cell(table, row, column);
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  return std::get<double>(value);
}

inline Provenance made_by(std::string git_hash, std::string dirty = "false",
                          std::string processor = "cpu x", std::string threads = "2",
                          std::string jobs = "1") {
  return Provenance({{"git_hash", std::move(git_hash)},
                     {"git_dirty", std::move(dirty)},
                     {"processor", std::move(processor)},
                     {"threads", std::move(threads)},
                     {"jobs", std::move(jobs)},
                     {"cuda", "available: one GPU"}});
}

}  // namespace vla_bench::testing
