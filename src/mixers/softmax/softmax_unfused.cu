// Mask and softmax of whole matrices of scores, only for unfused attention.
#include <cfloat>

#include "core/cuda/check.h"
#include "core/cuda/warp.h"
#include "mixers/softmax/softmax_cuda_launch.h"
#include "ops/cuda/reduce.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

constexpr int kRowWarps = 4;
constexpr int kRowThreads = kWarp * kRowWarps;

/// Block i + tokens * lane: row i of the lane's matrix.
__global__ void __launch_bounds__(kRowThreads) softmax_rows_kernel(float* scores, int tokens) {
  __shared__ float of_warps[kRowWarps];
  const int i = static_cast<int>(blockIdx.x) % tokens;
  float* row = scores + static_cast<Index>(blockIdx.x) * tokens;

  // Of this thread: the largest value and the sum of exponentials relative to it.
  float largest = -FLT_MAX, sum = 0.0F;  // finite, so that differences are numbers
  // Four values share the exponential that rescales the sum.
  constexpr int kValues = 4;
  for (int first = threadIdx.x; first <= i; first += kValues * kRowThreads) {
    float values[kValues];
    float now = largest;
#pragma unroll
    for (int m = 0; m < kValues; ++m) {
      const int j = first + m * kRowThreads;
      values[m] = j <= i ? row[j] : -FLT_MAX;
      now = fmaxf(now, values[m]);
    }
    sum *= expf(largest - now);
#pragma unroll
    for (int m = 0; m < kValues; ++m) sum += expf(values[m] - now);
    largest = now;
  }
  const float of_row = ops::cuda::block_max(largest, of_warps);
  const float scale = 1.0F / ops::cuda::block_sum(sum * expf(largest - of_row), of_warps);
#pragma unroll 4
  for (int j = threadIdx.x; j < tokens; j += kRowThreads) {
    row[j] = j <= i ? expf(row[j] - of_row) * scale : 0.0F;
  }
}

}  // namespace

void softmax_rows(cudaStream_t stream, float* scores, Index lanes, Index tokens) {
  const auto rows = static_cast<unsigned>(lanes * tokens);
  softmax_rows_kernel<<<rows, kRowThreads, 0, stream>>>(scores, static_cast<int>(tokens));
  VLA_CUDA_LAUNCHED("softmax_rows_kernel");
}

}  // namespace vla_bench::mixers::softmax::cuda
