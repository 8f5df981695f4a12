// A finished cell as one sealed line of JSON, the same bytes in record.json and in a pack:
//
//   {"checksum":"<16 digits>","record":1,"hash":...,"status":...,"seconds":...,"reason":...,
//    "config":{...},"provenance":{...},"others":[...],"tables":{"accuracy":{"columns":[...],
//    "rows":[[...]]}},"history":{"columns":[...],"rows":[[...]]}}
//
// The checksum is XXH3-64 over every byte after it, up to the end of the line. The learning curve
// is last, so that a reader that does not need it can stop before it; the members before it have a
// fixed order, so that a reader finds the parts that many records share without parsing them.
// Numbers are in shortest round-trip form; those that are not finite are {"number":"nan"}.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/config.h"
#include "report/plateau.h"
#include "report/table.h"

namespace vla_bench {

/// The outcome of a cell.
struct CellOutcome {
  std::string status = "ok";  // ok, skipped, diverged or failed
  std::string reason{};
  std::optional<double> seconds{};  // its duration from the start; unknown from early versions
};

/// The provenance of a cell: the facts of report/provenance.h in their order.
class Provenance {
 public:
  using Facts = std::vector<std::pair<std::string, std::string>>;

  Provenance() = default;
  explicit Provenance(Facts facts) : facts_(std::make_shared<const Facts>(std::move(facts))) {}

  bool empty() const { return facts_ == nullptr || facts_->empty(); }
  /// "" when there is no such fact.
  std::string_view fact(std::string_view name) const;
  const Facts& facts() const;
  /// One JSON object in one line.
  std::string to_json() const;
  bool operator==(const Provenance& other) const { return facts() == other.facts(); }

 private:
  std::shared_ptr<const Facts> facts_;  // shared by the cells of a sweep
};

struct CellRecord {
  RunConfig config;     // resolved: one mixer, one seed, no sweep, the device it ran on
  std::string hash;     // cell_hash(config)
  std::string group{};  // group_hash(config), only in a record that was read
  CellOutcome outcome{};
  Provenance provenance{};
  std::vector<Provenance> others{};  // provenance of further copies that `merge` found to agree
  std::vector<Table> tables{};       // the experiment's
  Table history{};                   // the learning curve of a training, if requested
  bool has_history = false;          // whether there is one, requested or not
  std::optional<Plateau> plateau{};  // of the learning curve, only in a record of find_cells
  // Where it was found:
  std::string run{};    // the results folder's or pack's name, "04_capacity"
  std::string place{};  // a folder, or a pack and the line in it, for messages

  /// The table called `name`; null when it has none.
  const Table* table(std::string_view name) const;
};

/// The record's line, without a newline.
std::string seal(const CellRecord& record);

/// losses: of the learning curve only the columns step and loss.
enum class ReadHistory { no, losses, yes };

/// Cache of the parts that records of a sweep share: configs that differ only in the seed, and
/// provenances. Records read with the same cache parse such parts once. Thread-safe.
class SharedParts {
 public:
  SharedParts();
  ~SharedParts();

  struct Known;  // of record.cpp
  Known& known() { return *known_; }

 private:
  std::unique_ptr<Known> known_;
};

/// Reads the record in `line`; `place` names it in messages. Throws BadInput "[place] ..." when it
/// is truncated, edited, of a future version, or its hash is not that of its config: then the cell
/// counts as unfinished.
CellRecord read_record(std::string_view line, const std::string& place,
                       ReadHistory history = ReadHistory::no, SharedParts* shared = nullptr);

/// Reads only the learning curve in `line`; without rows when there is none. Throws BadInput as
/// read_record does.
Table read_history(std::string_view line, const std::string& place);

/// The first members of a record.
struct RecordHead {
  std::string hash;
  CellOutcome outcome;  // without its reason
};
/// Checks the checksum and reads only these members. Throws BadInput as read_record does.
RecordHead read_head(std::string_view line, const std::string& place);

/// `body` (a JSON object) preceded by its checksum; also used for a pack's first line.
std::string seal_line(std::string_view body);
/// The body of a sealed line. Throws BadInput when its checksum is missing or wrong.
std::string_view open_line(std::string_view line, const std::string& place);

/// The part of a record that must be equal wherever the cell is computed: the rows of its tables,
/// without training times and labels. Timings of latency are its measurements, and stay.
std::string comparable_rows(const CellRecord& record);

}  // namespace vla_bench
