// Rows of a summary, put in order.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "report/table.h"

namespace vla_bench {

/// Collects the rows of groups and gives them back as a table, in the order of the groups' keys.
class SortedRows {
 public:
  /// The rows of one group, which keep their order.
  void add(std::vector<Value> key, std::vector<std::vector<Value>> rows);
  /// Leaves this empty.
  Table take(std::string name, std::vector<std::string> columns);

 private:
  std::vector<std::pair<std::vector<Value>, std::vector<std::vector<Value>>>> groups_;
};

}  // namespace vla_bench
