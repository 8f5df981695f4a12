// A finished cell as one sealed line of JSON, the same bytes in record.json and in a pack:
//
//   {"checksum":"<16 digits>","record":1,"hash":...,"status":...,"seconds":...,"reason":...,
//    "config":{...},"provenance":{...},"others":[...],"tables":{"accuracy":{"columns":[...],
//    "rows":[[...]]}},"history":{"columns":[...],"rows":[[...]]}}
//
// The checksum is XXH3-64 over every byte behind it, up to the end of the line. The learning curve
// stands last, so that a reader that does not ask for it stops in front of it; the members before
// it have this order, so that a reader finds what many records share without parsing it. Numbers
// are in shortest round-trip form; those that are not finite are {"number":"nan"}.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

/// How a cell ended.
struct CellOutcome {
  std::string status = "ok";  // ok, skipped, diverged or failed
  std::string reason{};
  std::optional<double> seconds{};  // what it took from its start; unknown of early versions
};

/// What made a cell: the facts of report/provenance.h in their order.
class Provenance {
 public:
  using Facts = std::vector<std::pair<std::string, std::string>>;

  Provenance() = default;
  explicit Provenance(Facts facts) : facts_(std::make_shared<const Facts>(std::move(facts))) {}

  bool empty() const { return facts_ == nullptr || facts_->empty(); }
  /// "" where there is no such fact.
  std::string_view fact(std::string_view name) const;
  const Facts& facts() const;
  /// One JSON object in one line.
  std::string to_json() const;
  bool operator==(const Provenance& other) const { return facts() == other.facts(); }

 private:
  std::shared_ptr<const Facts> facts_;  // cells of a sweep share one
};

struct CellRecord {
  RunConfig config;     // resolved: one mixer, one seed, no sweep, the device it ran on
  std::string hash;     // cell_hash(config)
  std::string group{};  // group_hash(config), of a record that was read
  CellOutcome outcome{};
  Provenance provenance{};
  std::vector<Provenance> others{};  // what made copies of it that `merge` found to agree
  std::vector<Table> tables{};       // the experiment's
  Table history{};                   // the learning curve of a training, where it was asked for
  bool has_history = false;          // there is one, asked for or not
  // Where it was found:
  std::string run{};    // the results folder's or pack's name, "04_capacity"
  std::string place{};  // a folder, or a pack and the line in it, for messages

  /// The table called `name`; null when it has none.
  const Table* table(std::string_view name) const;
};

/// The record's line, without a newline.
std::string seal(const CellRecord& record);

enum class ReadHistory { no, yes };

/// What records of a sweep share: configs that differ in the seed only, and what made the cells.
/// Records that are read with the same one have such parts parsed once. Several threads may use it.
class SharedParts {
 public:
  SharedParts();
  ~SharedParts();

  struct Known;  // of record.cpp
  Known& known() { return *known_; }

 private:
  std::unique_ptr<Known> known_;
};

/// The record that `line` holds; `place` is where, for messages. Throws BadInput "[place] ..." when
/// it is cut, edited, of a version to come, or its hash is not that of its config: then the cell
/// counts as unfinished.
CellRecord read_record(std::string_view line, const std::string& place,
                       ReadHistory history = ReadHistory::no, SharedParts* shared = nullptr);

/// Only the learning curve that `line` holds; without rows where there is none. Throws BadInput as
/// read_record does.
Table read_history(std::string_view line, const std::string& place);

/// What a record says first.
struct RecordHead {
  std::string hash;
  CellOutcome outcome;  // without its reason
};
/// After the checksum nothing else is read. Throws BadInput as read_record does.
RecordHead read_head(std::string_view line, const std::string& place);

/// `body` (a JSON object) with its checksum in front; what a pack's first line uses as well.
std::string seal_line(std::string_view body);
/// The body of a sealed line. Throws BadInput when its checksum is missing or another.
std::string_view open_line(std::string_view line, const std::string& place);

/// What must be equal wherever a cell is computed: the rows of its tables, without the times that a
/// training took and without labels. Timings of latency are what it measured, and stay.
std::string comparable_rows(const CellRecord& record);

}  // namespace vla_bench
