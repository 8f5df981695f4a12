// Which columns of a table go first where not all of them can be shown.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace vla_bench::cli {

enum class Telling {
  name,      // what a row is called
  headline,  // the quantities that the table is made for, and what went wrong
  detail,    // what else tells rows apart and is measured
  least,     // looked up rather than read: standard deviations, counted operations, commands
};

struct RankedColumn {
  std::size_t index = 0;  // among the table's columns
  Telling telling = Telling::detail;
};

/// The columns, the most telling ones first; equally telling ones in the table's order.
std::vector<RankedColumn> most_telling_first(const std::vector<std::string>& columns);

}  // namespace vla_bench::cli
