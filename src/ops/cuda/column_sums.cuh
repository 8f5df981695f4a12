// Column sums over many rows in two stages, in double and in a fixed order: each thread block sums
// a block of rows, and the last one to finish adds up their sums. Used for the gradients of biases,
// of LayerNorm and of the short convolution.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/index.h"
#include "ops/cuda/reduce.cuh"

namespace vla_bench::ops::cuda {

inline constexpr int kSumColumns = kWarp;  // per thread block: one coalesced line of floats
inline constexpr int kSumRows = 8;         // rows that a thread block reads at once: its warps
// 16 rows per warp: enough thread blocks for the GPU at M of a few thousand.
inline constexpr Index kSumRowsOfBlock = 128;
// Blocks of a launch that fill a GPU. With more, each has less to do, and the last of them, which
// adds up the others' sums, more.
inline constexpr Index kSumBlocks = 1024;
// Fewest blocks of rows of a launch with many columns.
inline constexpr Index kLeastSumBlocks = 32;

/// Sums over the block's threads of one column; the result is in those with threadIdx.y == 0.
template <int kSums>
__device__ inline void add_block_rows(double (&shared)[kSums][kSumRows][kSumColumns],
                                      double (&sums)[kSums]) {
  for (int s = 0; s < kSums; ++s) shared[s][threadIdx.y][threadIdx.x] = sums[s];
  __syncthreads();
  if (threadIdx.y != 0) return;
  for (int s = 0; s < kSums; ++s) {
    for (int i = 1; i < kSumRows; ++i) sums[s] += shared[s][i][threadIdx.x];
  }
}

/// Block (c, r, part) sums rows r * rows_of_block .. of columns first_column + c * 32 .. into
/// partials, each warp rows that follow one another; the last block of a (c, part) to finish adds
/// up the partials. Terms has
///   static constexpr int kSums;  // sums a column
///   // Adds rows first .. last - 1 of a column to sums (kSums).
///   __device__ void add(int part, Index first, Index last, int column, double* sums) const;
///   __device__ void store(int part, int column, const double* totals) const;
template <class Terms>
__global__ void __launch_bounds__(kSumRows* kSumColumns)
    column_sums_kernel(Terms terms, Index rows, Index rows_of_block, int first_column, int columns,
                       double* partials,    // (parts, blocks of rows, kSums, columns)
                       unsigned* counters)  // (parts, column groups of this launch)
{
  constexpr int kSums = Terms::kSums;
  __shared__ double shared[kSums][kSumRows][kSumColumns];
  const int part = static_cast<int>(blockIdx.z);
  const int column = first_column + static_cast<int>(blockIdx.x * kSumColumns + threadIdx.x);
  const bool inside = column < columns;
  const Index rows_of_warp = (rows_of_block + kSumRows - 1) / kSumRows;
  const Index last_of_block = min((blockIdx.y + 1) * rows_of_block, rows);
  const Index first = min(blockIdx.y * rows_of_block + threadIdx.y * rows_of_warp, last_of_block);

  double sums[kSums] = {};
  if (inside) {
    terms.add(part, first, min(first + rows_of_warp, last_of_block), column, sums);
  }
  add_block_rows(shared, sums);
  double* column_partials =
      partials + part * static_cast<Index>(gridDim.y) * kSums * columns + column;
  const auto partial = [=](unsigned block, int s) {
    return column_partials + (static_cast<Index>(block) * kSums + s) * columns;
  };
  if (inside && threadIdx.y == 0) {
    for (int s = 0; s < kSums; ++s) *partial(blockIdx.y, s) = sums[s];
  }

  if (!is_last_block(counters + blockIdx.z * gridDim.x + blockIdx.x, gridDim.y)) return;
  for (int s = 0; s < kSums; ++s) sums[s] = 0.0;
  if (inside) {
#pragma unroll 4
    for (unsigned block = threadIdx.y; block < gridDim.y; block += kSumRows) {
      for (int s = 0; s < kSums; ++s) sums[s] += *partial(block, s);
    }
  }
  add_block_rows(shared, sums);
  if (inside && threadIdx.y == 0) terms.store(part, column, sums);
}

/// Launches on `stream` the sums of `terms` over `rows` rows, for each column and each of `parts`.
template <class Terms>
void sum_columns(cudaStream_t stream, const Terms& terms, Index rows, Index columns,
                 unsigned parts = 1) {
  using vla_bench::cuda::StreamContext;
  if (rows == 0 || columns == 0) return;
  const auto groups = static_cast<unsigned>((columns + kSumColumns - 1) / kSumColumns);
  const Index most_blocks =
      std::min((rows + kSumRowsOfBlock - 1) / kSumRowsOfBlock,
               std::max(kSumBlocks / (static_cast<Index>(groups) * parts), kLeastSumBlocks));
  const Index rows_of_block = (rows + most_blocks - 1) / most_blocks;
  const auto blocks = static_cast<unsigned>((rows + rows_of_block - 1) / rows_of_block);
  const std::size_t bytes = StreamContext::kCounterBytes + sizeof(double) * parts * blocks *
                                                               Terms::kSums *
                                                               static_cast<std::size_t>(columns);
  auto* memory = static_cast<char*>(vla_bench::cuda::stream_context().scratch(stream, bytes));
  // One counter per column group and part; more groups than counters take several launches.
  const unsigned most_groups =
      static_cast<unsigned>(StreamContext::kCounterBytes / sizeof(unsigned)) / parts;
  for (unsigned first = 0; first < groups; first += most_groups) {
    const dim3 grid(std::min(groups - first, most_groups), blocks, parts);
    column_sums_kernel<<<grid, dim3(kSumColumns, kSumRows), 0, stream>>>(
        terms, rows, rows_of_block, static_cast<int>(first) * kSumColumns,
        static_cast<int>(columns), reinterpret_cast<double*>(memory + StreamContext::kCounterBytes),
        reinterpret_cast<unsigned*>(memory));
    VLA_CUDA_LAUNCHED("column_sums_kernel");
  }
}

}  // namespace vla_bench::ops::cuda
