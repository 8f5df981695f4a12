// The type of sizes and positions: signed, so that differences are numbers too.
#pragma once

#include <cstdint>

namespace vla_bench {

using Index = std::int64_t;

}  // namespace vla_bench
