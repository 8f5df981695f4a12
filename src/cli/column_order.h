// The priority of a table's columns when not all of them can be shown.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace vla_bench::cli {

enum class Telling {
  name,      // the name of a row
  headline,  // the main quantities of the table, and failures
  detail,    // other columns that distinguish rows, and other measurements
  least,     // looked up rather than read: standard deviations, counted operations, commands
};

struct RankedColumn {
  std::size_t index = 0;  // among the table's columns
  Telling telling = Telling::detail;
};

/// The columns, the most important first; equally important ones in the table's order.
std::vector<RankedColumn> most_telling_first(const std::vector<std::string>& columns);

}  // namespace vla_bench::cli
