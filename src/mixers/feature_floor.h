#pragma once

namespace vla_bench::mixers {

/// unit(x) = x / max(|x|, kUnitFloor); no gradient through the norm when it is below the floor.
inline constexpr double kUnitFloor = 1e-12;

}  // namespace vla_bench::mixers
