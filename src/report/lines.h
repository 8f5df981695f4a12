// Names of lines: what of their configs tells groups of one label apart.
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

/// A group of cells that wants a name.
struct NamedCells {
  std::string label;
  std::string hash;  // group_hash
  const RunConfig* config = nullptr;
  // What the key columns of the group's rows hold, a list a row: rows that differ there need no
  // other name.
  std::vector<std::vector<Value>> places{};
  // The same with where along its line the row lies; empty: as places.
  std::vector<std::vector<Value>> points{};
};

struct LineName {
  std::string line;            // "vla lr=0.001"
  std::string setting;         // "lr=0.001 curriculum=1500"
  std::vector<Value> order{};  // sorts the lines of a label: the values that the name holds
};

/// A group whose rows are told apart by these columns.
NamedCells named_cells(const CellGroup& group, std::initializer_list<Column> places);

/// What a table tells of a config beside a line's name.
struct ShownKeys {
  std::vector<std::string_view> keys;  // with a column of their own ("task.n_pairs")
  // That may vary along one line ("task.seq_len"): in a name only where two groups would share a
  // point of it.
  std::vector<std::string_view> along{};
};

/// A name a group, for `groups` in the order of label and hash.
///
/// `line` is the label, and behind it those keys ("lr=0.001") without which two groups of that
/// label would share name and places. Of keys that move together the first in the order of the
/// config stands for all. `setting` has every key without a column that differs among the groups of
/// the label. Keys go by their last part, unless two keys of these cells share it. Two labels never
/// share a name: where one reads like another's name, both get "config=<hash>".
std::vector<LineName> name_lines(std::span<const NamedCells> groups, const ShownKeys& shown);

/// What sorts the rows of summaries: label, line, the group's first place, hash.
std::vector<Value> line_order(const LineName& name, const NamedCells& cells);

}  // namespace vla_bench
