// From a head size to code made for it.
#pragma once

#include <type_traits>

#include "core/array.h"

namespace vla_bench::mixers::cuda {

/// Head sizes that the kernels are made for; mixers refuse others with this reason.
inline constexpr const char* kHeadSizes = "16, 32, 64 or 128";

/// Calls body with d as a compile-time constant. d is one of kHeadSizes.
template <class Body>
void with_head_size(Index d, const Body& body) {
  switch (d) {
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
