#include "experiments/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "experiments/list.h"
#include "report/cell_columns.h"

namespace vla_bench {
namespace {

bool has_status(const Schema& schema) {
  const auto& columns = schema.columns;
  return std::find(columns.begin(), columns.end(), Columns::status.name) != columns.end();
}

}  // namespace

Record::Record(const Schema& schema, const RunConfig& config, Device device) : schema_(&schema) {
  values_.reserve(schema.columns.size());
  for (const std::string_view column : schema.columns) {
    // The actual device, since a config may leave the choice open.
    if (column == Columns::device) {
      values_.emplace_back(std::string(device_name(device)));
    } else if (column == Columns::status) {
      values_.emplace_back(std::string(status_name(CellStatus::ok)));
    } else {
      values_.push_back(column_of(config, column));
    }
  }
}

std::size_t Record::position(const Column& column) const {
  const auto& columns = schema_->columns;
  const auto found = std::find(columns.begin(), columns.end(), column.name);
  if (found == columns.end()) {
    throw std::logic_error(fmt::format("table {} has no column {}", schema_->name, column.name));
  }
  return static_cast<std::size_t>(found - columns.begin());
}

Record& Record::set(const Column& column, Value value) {
  values_[position(column)] = std::move(value);
  return *this;
}

Record& Record::set_status(CellStatus status, const std::string& reason) {
  if (!has_status(*schema_)) return *this;
  set(Columns::status, std::string(status_name(status)));
  return set(Columns::reason, reason.empty() ? Value() : Value(reason));
}

CellResult unmeasured(const CellConfig& cell, const CellEnvironment& environment, CellStatus status,
                      const std::string& reason) {
  const Schema& schema = table_of(cell.config);
  CellResult result{
      .status = status, .reason = reason, .warning = {}, .table = Table(schema), .history = {}};
  if (has_status(schema)) {
    Record record(schema, cell.config, environment.context.device);
    result.table.add(record.set_status(status, reason).values());
  }
  return result;
}

}  // namespace vla_bench
