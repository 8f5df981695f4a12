// The order of values, and the groups of cells that summaries average, which differ only in the
// seed.
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

/// Compares two values: empty ones first, then numbers by size (NaN last), then strings. Returns a
/// negative number, 0 or a positive number.
int compare(const Value& a, const Value& b);
struct RowLess {
  bool operator()(const std::vector<Value>& a, const std::vector<Value>& b) const;
};

/// The value if it is a number.
std::optional<double> number(const Value& value);
/// The inverse: no number becomes an empty value.
Value value_of(std::optional<double> number);
/// An empty text becomes an empty value.
Value text_value(std::string text);

/// The facts of a cell in every summary.
struct CellEnd {
  Index seed = 0;
  std::string status = "ok";
  std::string reason{};
  Provenance provenance{};

  bool ok() const { return status == "ok"; }
};
/// When the record is ok, a table with a status and only one row decides (results of early versions
/// have it nowhere else), and a cell without rows has failed.
CellEnd state_of(const CellRecord& record);

/// Cells of one label whose identities differ only in the seed.
struct CellGroup {
  std::string label;
  std::string hash;  // group_hash: the column config
  // Only for timings, from their provenance.
  std::string processor{};  // ran_on
  std::string threads{};
  std::vector<const CellRecord*> cells;  // seeds ascending; never empty

  const RunConfig& config() const { return cells.front()->config; }
};

/// The states of a group's cells, and the cells that are ok; both in the order of the group.
struct GroupEnds {
  std::vector<CellEnd> states;
  std::vector<const CellRecord*> ok;
};
GroupEnds ends_of(const CellGroup& group);

/// Whether cells on different processors or with different numbers of threads are separate groups,
/// as for timings.
enum class Machines { together, apart };

/// Groups in the order of label, hash, processor and threads, for any order of `records`, which
/// must have each cell once.
std::vector<CellGroup> group_cells(std::span<const CellRecord* const> records,
                                   Machines machines = Machines::together);

/// "3 of 5".
std::string cells_text(std::size_t ok, std::size_t all);
/// "3 of 5": the number of ok states.
std::string cells_text(std::span<const CellEnd> states);
/// "seed 44: diverged: loss is nan at step 17; seed 45: failed: out of memory"; empty when all are
/// ok.
std::string not_ok_text(std::span<const CellEnd> states);
/// "2 program versions: 1206d27 (3), 114b3d1-dirty (2)"; empty when one made all of them.
std::string versions_note(std::span<const CellEnd> states);
/// Joins the non-empty notes by "; ".
std::string joined_notes(std::span<const std::string> notes);

/// The hardware of a cell, from its provenance: the GPU for device cuda, else the processor; ""
/// when unknown.
std::string_view ran_on(const RunConfig& config, const Provenance& provenance);

/// Threads for work on many cells.
int grouping_threads();

}  // namespace vla_bench
