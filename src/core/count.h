// Saturating sums and products of counts: a config may ask for more operations than 63 bits count,
// and its plan must still be the same everywhere.
#pragma once

#include <initializer_list>
#include <limits>

#include "core/array.h"

namespace vla_bench {

inline constexpr Index kMostCounted = std::numeric_limits<Index>::max();

/// The product of counts (>= 0).
inline Index times(std::initializer_list<Index> counts) {
  Index product = 1;
  for (const Index count : counts) {
    if (count == 0) return 0;
    if (__builtin_mul_overflow(product, count, &product)) product = kMostCounted;
  }
  return product;
}

/// The sum of counts (>= 0).
inline Index plus(std::initializer_list<Index> counts) {
  Index sum = 0;
  for (const Index count : counts) {
    if (__builtin_add_overflow(sum, count, &sum)) return kMostCounted;
  }
  return sum;
}

}  // namespace vla_bench
