// Mask and softmax of whole matrices of scores, only for unfused attention.
#include <cfloat>

#include "core/cuda/check.h"
#include "mixers/softmax/softmax_cuda_launch.h"
#include "mixers/softmax/softmax_tiles.h"

namespace vla_bench::mixers::softmax::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

/// Largest value and sum of exponentials relative to it.
struct Partial {
  float largest, sum;
};

__device__ Partial merge(const Partial& a, const Partial& b) {
  const float largest = fmaxf(a.largest, b.largest);
  return {largest, a.sum * expf(a.largest - largest) + b.sum * expf(b.largest - largest)};
}

/// Block i + tokens * lane: row i of the lane's matrix.
__global__ void __launch_bounds__(kThreads) softmax_rows_kernel(float* scores, int tokens) {
  __shared__ Partial of_warps[kWarps];
  const int i = static_cast<int>(blockIdx.x) % tokens;
  float* row = scores + static_cast<Index>(blockIdx.x) * tokens;

  Partial partial{-FLT_MAX, 0.0F};  // finite, so that differences are numbers
  // Four values share the exponential that rescales the sum.
  constexpr int kValues = 4;
  for (int first = threadIdx.x; first <= i; first += kValues * kThreads) {
    float values[kValues];
    Partial next{partial.largest, 0.0F};
#pragma unroll
    for (int m = 0; m < kValues; ++m) {
      const int j = first + m * kThreads;
      values[m] = j <= i ? row[j] : -FLT_MAX;
      next.largest = fmaxf(next.largest, values[m]);
    }
    next.sum = partial.sum * expf(partial.largest - next.largest);
#pragma unroll
    for (int m = 0; m < kValues; ++m) next.sum += expf(values[m] - next.largest);
    partial = next;
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    partial = merge(partial, {__shfl_xor_sync(0xFFFFFFFFU, partial.largest, offset),
                              __shfl_xor_sync(0xFFFFFFFFU, partial.sum, offset)});
  }
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = partial;
  __syncthreads();
  partial = of_warps[0];
  for (int warp = 1; warp < kWarps; ++warp) partial = merge(partial, of_warps[warp]);

  const float scale = 1.0F / partial.sum;
#pragma unroll 4
  for (int j = threadIdx.x; j < tokens; j += kThreads) {
    row[j] = j <= i ? expf(row[j] - partial.largest) * scale : 0.0F;
  }
}

}  // namespace

void softmax_rows(cudaStream_t stream, float* scores, Index lanes, Index tokens) {
  const auto rows = static_cast<unsigned>(lanes * tokens);
  softmax_rows_kernel<<<rows, kThreads, 0, stream>>>(scores, static_cast<int>(tokens));
  VLA_CUDA_LAUNCHED("softmax_rows_kernel");
}

}  // namespace vla_bench::mixers::softmax::cuda
