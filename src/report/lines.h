// Names of lines: the settings that distinguish groups of one label.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

struct CellGroup;

/// A group of cells to be named.
struct NamedCells {
  std::string label;
  std::string hash;  // group_hash
  const RunConfig* config = nullptr;
  // The values of the key columns, one list per row: rows that differ there need no other name.
  std::vector<std::vector<Value>> places{};
  // The same with the row's position along its line; empty: equal to places.
  std::vector<std::vector<Value>> points{};
};

struct LineName {
  std::string line;            // "vla lr=0.001"
  std::string setting;         // "lr=0.001 curriculum=1500"
  std::vector<Value> order{};  // the values in the name, by which the lines of a label are sorted
};

/// A group whose rows these columns distinguish.
NamedCells named_cells(const CellGroup& group, std::initializer_list<Column> places);

/// The parts of a config that a table has in addition to a line's name.
struct ShownKeys {
  std::vector<std::string_view> keys;  // with a column of their own ("task.n_pairs")
  // Keys that may vary along one line ("task.seq_len"): part of a name only when two groups would
  // share a point.
  std::vector<std::string_view> along{};
};

/// One name per group, for `groups` in the order of label and hash.
///
/// `line` is the label, followed by the keys ("lr=0.001") without which two groups of that label
/// would share name and places. Among keys that move together the first in the order of the config
/// represents all. `setting` has every key without a column that differs among the groups of the
/// label. Keys are shortened to their last part, unless two keys of these cells share it. Two
/// labels never share a name: when one equals another's name, both get "config=<hash>".
std::vector<LineName> name_lines(std::span<const NamedCells> groups, const ShownKeys& shown);

/// The sort key of summaries' rows: label, line, the group's first place, hash.
std::vector<Value> line_order(const LineName& name, const NamedCells& cells);

}  // namespace vla_bench
