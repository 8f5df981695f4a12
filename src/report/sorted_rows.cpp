#include "report/sorted_rows.h"

#include <algorithm>

#include "report/grouping.h"

namespace vla_bench {

void SortedRows::add(std::vector<Value> key, std::vector<std::vector<Value>> rows) {
  groups_.emplace_back(std::move(key), std::move(rows));
}

Table SortedRows::take(std::string name, std::vector<std::string> columns) {
  std::stable_sort(groups_.begin(), groups_.end(),
                   [](const auto& a, const auto& b) { return RowLess()(a.first, b.first); });
  Table table;
  table.name = std::move(name);
  table.columns = std::move(columns);
  for (auto& [key, rows] : groups_) {
    for (std::vector<Value>& row : rows) table.add(std::move(row));
  }
  groups_.clear();
  return table;
}

}  // namespace vla_bench
