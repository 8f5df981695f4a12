// A block a lane and a thread a channel: thread j holds column j of A (which is symmetric) and row
// j of S, whose transpose is what lies in memory, so that neighbours read neighbours.
#include <cuda_runtime.h>

#include "core/cuda/check.h"
#include "core/cuda/warp.h"
#include "mixers/vla/vla_token_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

constexpr int kMostChannels = 128;
constexpr unsigned kAllLanes = 0xFFFFFFFFU;
constexpr float kSmallestNorm = 1e-12F;  // of unit() in vla.h

int threads_for(Index d) { return d < kWarp ? kWarp : static_cast<int>(d); }

/// The sum over the block, the same bits in every thread. sums: (kMostChannels / kWarp).
__device__ float block_sum(float value, float* sums) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  __syncthreads();  // the last call's sums have been read
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  float sum = 0.0F;
  for (unsigned warp = 0; warp < blockDim.x / kWarp; ++warp) sum += sums[warp];
  return sum;
}

__global__ void __launch_bounds__(kMostChannels) start_tokens_kernel(VlaTokens args) {
  const Index d = args.dims.d_h;
  float* state = args.state + blockIdx.x * (2 * d * d + d);
  for (Index i = threadIdx.x; i < 2 * d * d + d; i += blockDim.x) {
    const bool diagonal = i < d * d && i / d == i % d;
    state[i] = diagonal ? args.inverse_lambda : 0.0F;
  }
}

__global__ void __launch_bounds__(kMostChannels) step_token_kernel(VlaTokens args, Index t) {
  __shared__ float u[kMostChannels], k[kMostChannels], q[kMostChannels];
  __shared__ float w[kMostChannels], a[kMostChannels];
  __shared__ float sums[kMostChannels / kWarp];
  const int d = static_cast<int>(args.dims.d_h);
  const int j = static_cast<int>(threadIdx.x);
  const bool exists = j < d;  // heads of fewer channels than a warp has threads
  const Index batch = blockIdx.x / args.dims.heads;
  const Index head = blockIdx.x % args.dims.heads;
  const auto at = [&](const auto& view) {
    return view.data + batch * view.batch + t * view.token + head * view.head;
  };
  float* A = args.state + blockIdx.x * (2 * args.dims.d_h * d + d);
  float* S = A + d * d;  // transposed
  float* z = S + d * d;
  const bool has_penalty = args.u.data != nullptr;
  const bool nudged = args.period > 0 && (t + 1) % args.period == 0;

  if (exists) {
    if (has_penalty) u[j] = at(args.u)[j];
    k[j] = at(args.k)[j];
    q[j] = at(args.query)[j];
  }
  __syncthreads();

  float b = 0.0F;
  if (has_penalty) {
    float w_j = 0.0F;  // (2)
    if (exists) {
      for (int i = 0; i < d; ++i) w_j += A[i * d + j] * u[i];
      w[j] = w_j;
    }
    const float delta = 1.0F + block_sum(exists ? u[j] * w_j : 0.0F, sums);
    const float factor = 1.0F / fmaxf(delta, args.stab_eps);
    if (exists) {
      for (int i = 0; i < d; ++i) {
        // w_i w_j first: the product commutes, so A stays symmetric to the last bit.
        float A_ij = A[i * d + j] - w[i] * w_j * factor;
        if (i == j && nudged) A_ij += args.per_eps;  // (3)
        A[i * d + j] = A_ij;
        b += A_ij * k[i];  // (4)
      }
    }
  } else if (exists) {
    b = args.inverse_lambda * k[j];
  }
  if (args.unit_write) b /= fmaxf(sqrtf(block_sum(b * b, sums)), kSmallestNorm);
  if (exists) a[j] = b;
  __syncthreads();

  float n = 0.0F;
  if (exists) {
    const float* r = args.tied ? a : k;
    float e = at(args.v)[j];  // (5)
    for (int i = 0; i < d; ++i) e -= S[i * d + j] * r[i];
    for (int i = 0; i < d; ++i) {
      const float S_ji = S[i * d + j] + e * a[i];  // (6)
      S[i * d + j] = S_ji;
      n += S_ji * q[i];  // (8)
    }
  }
  if (args.normalises) {
    float z_j = 0.0F;  // (7)
    if (exists) {
      z_j = z[j] + at(args.f)[j];
      z[j] = z_j;
    }
    n /= fmaxf(block_sum(exists ? z_j * q[j] : 0.0F, sums), args.stab_eps);
  }
  if (exists) at(args.o)[j] = n;
}

}  // namespace

void start_tokens(cudaStream_t stream, const VlaTokens& args) {
  const auto lanes = static_cast<unsigned>(args.dims.lanes());
  start_tokens_kernel<<<lanes, threads_for(args.dims.d_h), 0, stream>>>(args);
  VLA_CUDA_LAUNCHED("start_tokens");
}

void step_token(cudaStream_t stream, const VlaTokens& args, Index t) {
  const auto lanes = static_cast<unsigned>(args.dims.lanes());
  step_token_kernel<<<lanes, threads_for(args.dims.d_h), 0, stream>>>(args, t);
  VLA_CUDA_LAUNCHED("step_token");
}

}  // namespace vla_bench::mixers::cuda
