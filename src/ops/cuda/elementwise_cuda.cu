// GELU, gates and zeroing over flat buffers.
//
// At the published size (M F = 4,672 * 256 = 1.2 million elements) the forward moves 9.6 MB and the
// backward 14.4 MB, in L2: floors of 2 and 3 us at 5 TB/s. erf and exp are about 40 and 60
// instructions per element, another 2 and 3 us of float32 units, partly beside the loads: 4 and
// 5 us expected.
//
// The gated convolution of 256 sequences of 256 tokens at D = 128 has 8.4 million elements: 168 MB
// each for gated_sum_forward and _backward, 48 us at 3.5 TB/s from HBM; the arithmetic is free.
#include <cuda_runtime.h>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "ops/backends.h"
#include "ops/cuda/vectors.cuh"

namespace vla_bench::ops::cuda {
namespace {

constexpr int kElementThreads = 256;

/// Phi(x), the standard normal distribution function.
__device__ inline float normal_cdf(float x) {
  constexpr float kInverseRootTwo = 0.70710678118654752440F;
  return 0.5F * (1.0F + erff(x * kInverseRootTwo));
}

__device__ inline Index first_of_thread() {
  return (static_cast<Index>(blockIdx.x) * kElementThreads + threadIdx.x) * kVector;
}

__global__ void __launch_bounds__(kElementThreads)
    gelu_forward_kernel(const float* x, float* y, Index count, bool aligned) {
  const Index first = first_of_thread();
  float values[kVector] = {};
  load_vector(x, first, count, aligned, values);
#pragma unroll
  for (float& value : values) value *= normal_cdf(value);
  store_vector(y, first, count, aligned, values);
}

// dx may be dy: a thread reads its elements before it writes them.
__global__ void __launch_bounds__(kElementThreads)
    gelu_backward_kernel(const float* x, const float* dy, float* dx, Index count, bool aligned) {
  constexpr float kInverseSqrtTwoPi = 0.39894228040143267794F;
  const Index first = first_of_thread();
  float values[kVector] = {};
  float gradients[kVector] = {};
  load_vector(x, first, count, aligned, values);
  load_vector(dy, first, count, aligned, gradients);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const float value = values[i];
    const float density = kInverseSqrtTwoPi * expf(-0.5F * value * value);
    gradients[i] *= normal_cdf(value) + value * density;
  }
  store_vector(dx, first, count, aligned, gradients);
}

__global__ void __launch_bounds__(kElementThreads)
    gated_sum_forward_kernel(GatedSum<float> args, bool aligned) {
  const Index first = first_of_thread();
  float value[kVector] = {};
  float gate[kVector] = {};
  float x[kVector] = {};
  float sum[kVector] = {};
  load_vector(args.value, first, args.count, aligned, value);
  load_vector(args.gate, first, args.count, aligned, gate);
  load_vector(args.x, first, args.count, aligned, x);
  load_vector(args.residual, first, args.count, aligned, sum);
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum[i] = sum[i] + x[i] + value[i] * gate[i];
  store_vector(args.y, first, args.count, aligned, sum);
}

__global__ void __launch_bounds__(kElementThreads)
    gated_sum_backward_kernel(GatedSumBackward<float> args, bool aligned) {
  const Index first = first_of_thread();
  float value[kVector] = {};
  float gate[kVector] = {};
  float dy[kVector] = {};
  load_vector(args.value, first, args.count, aligned, value);
  load_vector(args.gate, first, args.count, aligned, gate);
  load_vector(args.dy, first, args.count, aligned, dy);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    value[i] *= dy[i];
    gate[i] *= dy[i];
  }
  store_vector(args.dvalue, first, args.count, aligned, gate);
  store_vector(args.dgate, first, args.count, aligned, value);
}

unsigned element_blocks(Index count) {
  constexpr Index kElementsOfBlock = Index{kElementThreads} * kVector;
  return static_cast<unsigned>((count + kElementsOfBlock - 1) / kElementsOfBlock);
}

}  // namespace

void gelu_forward(const Context&, const float* x, float* y, Index count) {
  if (count == 0) return;
  gelu_forward_kernel<<<element_blocks(count), kElementThreads, 0,
                        vla_bench::cuda::stream_context().stream()>>>(x, y, count,
                                                                      aligned_for_vectors(x, y));
  VLA_CUDA_LAUNCHED("gelu_forward");
}

void gelu_backward(const Context&, const float* x, const float* dy, float* dx, Index count) {
  if (count == 0) return;
  gelu_backward_kernel<<<element_blocks(count), kElementThreads, 0,
                         vla_bench::cuda::stream_context().stream()>>>(
      x, dy, dx, count, aligned_for_vectors(x, dy, dx));
  VLA_CUDA_LAUNCHED("gelu_backward");
}

void gated_sum_forward(const Context&, const GatedSum<float>& args) {
  if (args.count == 0) return;
  gated_sum_forward_kernel<<<element_blocks(args.count), kElementThreads, 0,
                             vla_bench::cuda::stream_context().stream()>>>(
      args, aligned_for_vectors(args.value, args.gate, args.x, args.residual, args.y));
  VLA_CUDA_LAUNCHED("gated_sum_forward");
}

void gated_sum_backward(const Context&, const GatedSumBackward<float>& args) {
  if (args.count == 0) return;
  gated_sum_backward_kernel<<<element_blocks(args.count), kElementThreads, 0,
                              vla_bench::cuda::stream_context().stream()>>>(
      args, aligned_for_vectors(args.value, args.gate, args.dy, args.dvalue, args.dgate));
  VLA_CUDA_LAUNCHED("gated_sum_backward");
}

void fill_zero(const Context&, float* data, Index count) {
  if (count == 0) return;
  VLA_CUDA(cudaMemsetAsync(data, 0, static_cast<std::size_t>(count) * sizeof(float),
                           vla_bench::cuda::stream_context().stream()));
}

}  // namespace vla_bench::ops::cuda
