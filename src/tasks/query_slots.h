// The power law of the zoology layout's query gaps, as integers.
#pragma once

#include <cstdint>
#include <vector>

#include "tasks/rows.h"

namespace vla_bench {

/// Owns the tables of QuerySlots. `count` slots with weights proportional to (g + 1)^(power_a - 1)
/// to within one part in 2^31 of their sum, never 0.
class QuerySlotTable {
 public:
  QuerySlotTable(std::int32_t count, double power_a);
  QuerySlots view() const;

 private:
  std::vector<std::uint32_t> weights_;
  std::vector<std::uint32_t> tree_;
  std::uint32_t total_ = 0;
};

}  // namespace vla_bench
