// Sorting and grouping table rows, and what a summary knows of the cell a row came from.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/statistics.h"
#include "report/record.h"
#include "report/table.h"

namespace vla_bench {

/// Empty values first, then numbers by size (NaN last), then strings: negative, 0 or positive.
int compare(const Value& a, const Value& b);
struct RowLess {
  bool operator()(const std::vector<Value>& a, const std::vector<Value>& b) const;
};

/// The value when it is a number.
std::optional<double> number(const Value& value);
/// The other way: nothing becomes an empty value.
Value value_of(std::optional<double> number);

/// What a cell's config and provenance say beyond the columns of its table.
struct CellFacts {
  std::string settings;  // what can change the table's values, mixer and seed apart
  std::string config;    // group_hash: cells that differ in the seed only share it
  Value label, mixer;    // as in the tables
  Value precision;       // that the table's values were computed in
  Value seed, source, n_heads, d_h;
  Value threads, processor;  // or GPU, of cells that ran on one; empty without provenance
  CellOutcome outcome{};
};
CellFacts cell_facts(const CellRecord& record);

struct SourcedRow {
  std::vector<Value> values;
  const CellFacts* cell;
};

/// Rows of equal keys, in the order of the keys.
using RowGroups = std::map<std::vector<Value>, std::vector<SourcedRow>, RowLess>;
/// Groups by the named columns of `table`, then by the named members of CellFacts.
RowGroups group_rows(const Table& table, std::span<const SourcedRow> rows,
                     const std::vector<std::string_view>& columns,
                     const std::vector<Value CellFacts::*>& facts, bool by_config);

/// Cells that differ in seed alone, with all their rows: cells that measured nothing have none.
struct CellGroup {
  std::vector<const CellFacts*> cells;
  std::vector<SourcedRow> rows;
};
using CellGroups = std::map<std::vector<Value>, CellGroup, RowLess>;
/// Groups by the named members of CellFacts, then by config.
CellGroups group_cells(const std::deque<CellFacts>& cells, std::span<const SourcedRow> rows,
                       const std::vector<Value CellFacts::*>& facts);

/// Appends status and reason: "ok" and nothing when every seed is ok; else the gravest of failed,
/// diverged and skipped with its reason, behind "1 of 3 seeds: " unless it is that of all.
void append_outcome(std::vector<Value>& row, std::span<const CellFacts* const> cells);

/// Appends mean, standard deviation and 95% half width; what the count leaves undefined stays
/// empty.
void append_statistics(std::vector<Value>& row, const Statistics& statistics);

}  // namespace vla_bench
