#include "cli/narrow_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "report/grouping.h"

namespace vla_bench::cli {
Table narrowed(const Table& table, const std::vector<std::string>& conditions,
               const std::vector<std::string>& columns) {
  std::vector<std::pair<std::size_t, Value>> wanted;
  for (const std::string& condition : conditions) {
    const std::size_t equals = condition.find('=');
    if (equals == std::string::npos) {
      throw BadInput(fmt::format("--where: expected COLUMN=VALUE, got \"{}\"", condition));
    }
    wanted.emplace_back(table.column(condition.substr(0, equals), "--where"),
                        field_value(condition.substr(equals + 1)));
  }
  std::vector<std::size_t> shown;
  for (const std::string& name : columns) shown.push_back(table.column(name, "--column"));

  Table part;
  part.name = table.name;
  part.columns = columns.empty() ? table.columns : columns;
  for (const std::vector<Value>& row : table.rows) {
    const bool holds = std::all_of(wanted.begin(), wanted.end(), [&](const auto& condition) {
      return compare(row[condition.first], condition.second) == 0;
    });
    if (!holds) continue;
    std::vector<Value> values;
    for (const std::size_t column : shown) values.push_back(row[column]);
    part.add(columns.empty() ? row : std::move(values));
  }
  return part;
}

}  // namespace vla_bench::cli
