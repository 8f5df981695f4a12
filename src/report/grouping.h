// Values in order, and the groups of cells that summaries average: those that differ in the seed
// only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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
/// An empty text becomes an empty value.
Value text_value(std::string text);

/// What every summary tells of a cell.
struct CellEnd {
  Index seed = 0;
  std::string status = "ok";
  std::string reason{};
  Provenance provenance{};

  bool ok() const { return status == "ok"; }
};
/// Where the record says ok, a table with a status and one row has the last word (results of early
/// versions have no other place for it), and a cell without any row has failed.
CellEnd state_of(const CellRecord& record);

/// Cells of one label whose identity differs in the seed only.
struct CellGroup {
  std::string label;
  std::string hash;  // group_hash: the column config
  // Of timings, what their provenance says; else empty.
  std::string processor{};  // ran_on
  std::string threads{};
  std::vector<const CellRecord*> cells;  // seeds ascending; never empty

  const RunConfig& config() const { return cells.front()->config; }
};

/// How a group's cells ended, and those of them that are ok; both in the order of the group.
struct GroupEnds {
  std::vector<CellEnd> states;
  std::vector<const CellRecord*> ok;
};
GroupEnds ends_of(const CellGroup& group);

/// Whether cells that ran on other processors or with other numbers of threads are apart: timings.
enum class Machines { together, apart };

/// Groups in the order of label, hash, processor and threads, whatever the order of `records`,
/// which has each cell once.
std::vector<CellGroup> group_cells(std::span<const CellRecord* const> records,
                                   Machines machines = Machines::together);

/// "3 of 5".
std::string cells_text(std::size_t ok, std::size_t all);
/// "3 of 5": how many of the states are ok.
std::string cells_text(std::span<const CellEnd> states);
/// "seed 44: diverged: loss is nan at step 17; seed 45: failed: out of memory"; empty when all are
/// ok.
std::string not_ok_text(std::span<const CellEnd> states);
/// "2 program versions: 1206d27 (3), 114b3d1-dirty (2)"; empty when one made all of them.
std::string versions_note(std::span<const CellEnd> states);
/// The notes that are not empty, with "; " between them.
std::string joined_notes(std::span<const std::string> notes);

/// The name of what a cell ran on, from its provenance: the GPU of a cell of device cuda, else the
/// processor; "" where it is not known.
std::string_view ran_on(const RunConfig& config, const Provenance& provenance);

/// Threads for work on many cells.
int grouping_threads();

}  // namespace vla_bench
