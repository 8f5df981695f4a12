#include "core/cuda/check.h"
#include "core/cuda/place.h"
#include "ops/cuda/column_sums.h"
#include "ops/cuda/reduce.cuh"

namespace vla_bench::ops::cuda {
namespace {

constexpr int kColumns = kWarp;  // of a block: one coalesced line of floats
constexpr int kRowsAtOnce = 8;   // warps of a block
constexpr Index kRowsOfBlock =
    128;  // 16 rows a thread: enough blocks for the GPU at M of a few thousand

/// Block (c, r) sums rows r * kRowsOfBlock .. of columns c * 32 .. into partials[r]; the last block
/// of a column group adds the partials up.
__global__ void column_sums_kernel(const float* x, Index rows, int columns, Index stride,
                                   double* partials, unsigned* counters, float* sums) {
  __shared__ double shared[kRowsAtOnce][kColumns];
  const int column = blockIdx.x * kColumns + threadIdx.x;
  const Index first = blockIdx.y * kRowsOfBlock;
  const Index last = min(first + kRowsOfBlock, rows);
  double sum = 0.0;
  if (column < columns) {
    for (Index row = first + threadIdx.y; row < last; row += kRowsAtOnce) {
      sum += static_cast<double>(x[row * stride + column]);
    }
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < kRowsAtOnce; ++i) sum += shared[i][threadIdx.x];
    partials[blockIdx.y * static_cast<Index>(columns) + column] = sum;
  }
  if (!is_last_block(counters + blockIdx.x, gridDim.y)) return;
  double total = 0.0;
  if (column < columns) {
    for (unsigned block = threadIdx.y; block < gridDim.y; block += kRowsAtOnce) {
      total += partials[block * static_cast<Index>(columns) + column];
    }
  }
  shared[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < kRowsAtOnce; ++i) total += shared[i][threadIdx.x];
    sums[column] += static_cast<float>(total);
  }
}

}  // namespace

void add_column_sums(cudaStream_t stream, Matrix<const float> x, float* sums) {
  if (x.rows == 0 || x.cols == 0) return;
  const auto groups = static_cast<unsigned>((x.cols + kColumns - 1) / kColumns);
  const auto blocks = static_cast<unsigned>((x.rows + kRowsOfBlock - 1) / kRowsOfBlock);
  vla_bench::cuda::Place& place = vla_bench::cuda::place();
  // A counter a column group; beyond what is kept for counters, groups go in several launches.
  constexpr unsigned kMostGroups = vla_bench::cuda::Place::kCounterBytes / sizeof(unsigned);
  const std::size_t bytes = vla_bench::cuda::Place::kCounterBytes +
                            static_cast<std::size_t>(blocks) * x.cols * sizeof(double);
  auto* memory = static_cast<char*>(place.scratch(stream, bytes));
  auto* counters = reinterpret_cast<unsigned*>(memory);
  auto* partials = reinterpret_cast<double*>(memory + vla_bench::cuda::Place::kCounterBytes);
  for (unsigned first = 0; first < groups; first += kMostGroups) {
    const Index column = static_cast<Index>(first) * kColumns;
    const dim3 grid(min(groups - first, kMostGroups), blocks);
    column_sums_kernel<<<grid, dim3(kColumns, kRowsAtOnce), 0, stream>>>(
        x.data + column, x.rows, static_cast<int>(x.cols - column), x.stride, partials, counters,
        sums + column);
    VLA_CUDA_LAUNCHED("column_sums_kernel");
  }
}

}  // namespace vla_bench::ops::cuda
