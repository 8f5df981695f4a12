// Tests only: sealed cells that nobody ran.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "config/read.h"
#include "report/record.h"

namespace vla_bench::testing {

/// The first cell of a config, with its table.
inline CellRecord record_of(std::string_view json, Table table, Device device = Device::cpu) {
  CellConfig cell = expand_cells(parse_config(json, "test"), device).front();
  CellRecord record{.config = std::move(cell.config), .hash = std::move(cell.hash)};
  record.run = record.config.name;
  record.place = "runs/" + record.run + "/" + record.hash;
  record.tables.push_back(std::move(table));
  return record;
}

}  // namespace vla_bench::testing
