// From a head size to code made for it.
#pragma once

#include <type_traits>

#include "core/array.h"

namespace vla_bench::mixers::cuda {

/// Head sizes that mixers have kernels for. 8, the golden files' size, runs in those of 16:
/// channels that do not exist are read as 0 and not written.
inline constexpr const char* kHeadSizes = "8, 16, 32, 64 or 128";
inline bool is_head_size(Index d) { return d == 8 || d == 16 || d == 32 || d == 64 || d == 128; }

/// The size whose kernels serve d.
inline Index kernel_head_size(Index d) { return d < 16 ? 16 : d; }

/// Calls body with kernel_head_size(d) as a compile-time constant.
template <class Body>
void with_head_size(Index d, const Body& body) {
  switch (kernel_head_size(d)) {
    case 16:
      return body(std::integral_constant<int, 16>());
    case 32:
      return body(std::integral_constant<int, 32>());
    case 64:
      return body(std::integral_constant<int, 64>());
    default:
      return body(std::integral_constant<int, 128>());
  }
}

}  // namespace vla_bench::mixers::cuda
