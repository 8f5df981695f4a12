// One row of an experiment's table, filled by column. The columns that identify the cell (mixer,
// sizes, seed, device, status) come from its config in the same way for finished, skipped and
// failed cells.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "experiments/experiment.h"

namespace vla_bench {

class Record {
 public:
  /// Fills the columns of `schema` that the config determines; status is "ok", the rest is empty.
  Record(const Schema& schema, const RunConfig& config, Device device);

  /// Throws std::logic_error when the schema has no such column: a programming error.
  Record& set(const Column& column, Value value);
  /// Sets the columns status and reason, in tables that have them.
  Record& set_status(CellStatus status, const std::string& reason);

  const std::vector<Value>& values() const { return values_; }
  /// Throws as set does.
  const Value& value(const Column& column) const { return values_[position(column)]; }

 private:
  std::size_t position(const Column& column) const;

  const Schema* schema_;
  std::vector<Value> values_;
};

/// The result of a cell without measurements: its status and reason, and one row with these if the
/// table has columns for them.
CellResult unmeasured(const CellConfig& cell, const CellEnvironment& environment, CellStatus status,
                      const std::string& reason);

}  // namespace vla_bench
