// The size of a warp, the same on every GPU so far.
#pragma once

namespace vla_bench {

inline constexpr int kWarp = 32;

}  // namespace vla_bench
