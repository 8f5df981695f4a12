// A row handled by one warp: thread l of the warp has columns l, l + 32, ...
#pragma once

#include <cuda_runtime.h>

#include "core/index.h"
#include "ops/cuda/reduce.cuh"

namespace vla_bench::ops::cuda {

/// Rows of a thread block, one warp each.
inline constexpr int kRowsOfBlock = 8;

/// The thread blocks of that many rows.
inline unsigned row_blocks(Index rows) {
  return static_cast<unsigned>((rows + kRowsOfBlock - 1) / kRowsOfBlock);
}

/// Calls use(slot, column) for every column of the calling thread; slots count from 0. kSlots
/// bounds the columns at 32 kSlots and unrolls; 0 does not bound them.
template <int kSlots, class Use>
__device__ inline void for_thread_columns(int columns, const Use& use) {
  const int thread = static_cast<int>(threadIdx.x % kWarp);
  if constexpr (kSlots > 0) {
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const int column = thread + slot * kWarp;
      if (column < columns) use(slot, column);
    }
  } else {
    for (int column = thread; column < columns; column += kWarp) use(0, column);
  }
}

/// A thread's share of a row, kept in registers; with kSlots 0 read from memory every time.
template <int kSlots>
class WarpRow {
 public:
  __device__ WarpRow(const float* row, int columns) {
    for_thread_columns<kSlots>(columns, [&](int slot, int column) { values_[slot] = row[column]; });
  }
  __device__ float at(int slot, int) const { return values_[slot]; }

 private:
  float values_[kSlots];
};

template <>
class WarpRow<0> {
 public:
  __device__ WarpRow(const float* row, int) : row_(row) {}
  __device__ float at(int, int column) const { return row_[column]; }

 private:
  const float* row_;
};

/// Calls run.template operator()<kSlots>() with the smallest available kSlots for `columns`.
template <class Run>
void dispatch_slots(Index columns, const Run& run) {
  if (columns <= 4 * kWarp) {
    run.template operator()<4>();
  } else if (columns <= 16 * kWarp) {
    run.template operator()<16>();
  } else if (columns <= 32 * kWarp) {
    run.template operator()<32>();
  } else {
    run.template operator()<0>();
  }
}

}  // namespace vla_bench::ops::cuda
