// One row of an experiment's table, filled by column name: what identifies the cell (mixer, sizes,
// seed, device, status) comes from its config in one place, so rows of finished, skipped and failed
// cells cannot disagree.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "experiments/experiment.h"

namespace vla_bench {

class Record {
 public:
  /// Fills every column of `schema` that the config determines; status is "ok", the rest empty.
  Record(const Schema& schema, const RunConfig& config, Device device);

  /// Throws std::logic_error when the schema has no such column: a programming error.
  Record& set(const Column& column, Value value);
  /// Sets the columns status and reason; tables without them keep the row alone.
  Record& set_status(CellStatus status, const std::string& reason);

  const std::vector<Value>& values() const { return values_; }

 private:
  const Schema& schema_;
  std::vector<Value> values_;
};

/// A cell that measured nothing: its status, the reason, and one row that says so where the table
/// has a column for it. (A row of empty measurements alone would say nothing.)
CellResult unmeasured(const CellConfig& cell, const CellEnvironment& environment, CellStatus status,
                      const std::string& reason);

}  // namespace vla_bench
