// How CPU operations split their work into blocks, and memory for partial results.
#pragma once

#include <algorithm>

#include "core/array.h"

namespace vla_bench::ops::cpu {

/// `total` items in consecutive blocks of `size`, the last one shorter. Block boundaries depend
/// only on sizes, never on the number of threads, so sums over blocks are the same on any machine.
struct Blocks {
  Index total;
  Index size;

  Index count() const { return (total + size - 1) / size; }
  Index first(Index block) const { return block * size; }
  Index length(Index block) const { return std::min(size, total - block * size); }
};

/// Elements per block of an elementwise operation: a few arrays of that size fit in L1.
inline constexpr Index kElementBlock = 2048;

/// Returns memory for at least `count` elements of partial results, contents unspecified. It
/// belongs to the calling thread, whose next call with the same T and slot reuses it; call outside
/// parallel regions.
template <class T, int slot = 0>
T* scratch(Index count) {
  static thread_local Array<T> memory;
  if (memory.size() < count) memory.resize(Device::cpu, count);
  return memory.data();
}

}  // namespace vla_bench::ops::cpu
