// The decay's gradient in chunks: 13 of chunked.h.
#include "core/cuda/check.h"
#include "mixers/recurrence/chunk_passes.h"
#include "mixers/recurrence/chunk_rule.cuh"
#include "mixers/recurrence/lines.cuh"

namespace vla_bench::mixers::cuda {
namespace {

// 13, by its sum over later tokens: with b_t = alpha_t dalpha_t and <dS, S> of the S before token t
// and its gradient,
//   b_t = <dS, S> before the next chunk + sum over s >= t in the chunk (q_s.dq_s - a_s.da_s)
//         + sum over s > t in the chunk r_s.dr_s
// A key channel has this sum with its own term of every product, <dS, S> being that of its columns.
// The sum begins anew in each chunk, since its terms' errors would add up.

// Decays below it have the gradient 0: a quotient by them would be of rounding errors.
constexpr float kLeastDecay = 1e-20F;
__device__ inline float by_decay(double logarithms, float alpha) {
  return alpha < kLeastDecay ? 0.0F : static_cast<float>(logarithms / static_cast<double>(alpha));
}

struct DecayGradientArgs {
  int tokens, heads;
  Index chunks;  // of all lanes
  TokenSource q, dq, a, da, r, dr, decay;
  TokenView<float> ddecay;
  const float* chunk_products;
};

/// x_t . y_t of the thread's four channels.
__device__ inline float partial_product(const TokenSource& x, const TokenSource& y, int batch,
                                        int head, int token, int channel) {
  if (x.view.data == nullptr || channel >= x.width) return 0.0F;
  const float* from_x = x.view.lane(batch, head) + token * x.view.token + channel;
  const float* from_y = y.view.lane(batch, head) + token * y.view.token + channel;
  float sum = 0.0F;
  if (x.wide && y.wide) {
    const float4 u = quad_of(from_x);
    const float4 v = quad_of(from_y);
    return fmaf(u.x, v.x, fmaf(u.y, v.y, fmaf(u.z, v.z, u.w * v.w)));
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) sum = fmaf(from_x[i], from_y[i], sum);
  return sum;
}

constexpr int kGradientWarps = 4;
/// A chunk by a warp, D / 4 threads a token.
template <int D>
__global__ void __launch_bounds__(kGradientWarps* kWarp)
    decay_gradient_kernel(const DecayGradientArgs args) {
  static_assert(kChunkTokens == kWarp);
  constexpr int kLanes = D / 4;
  const int thread = static_cast<int>(threadIdx.x) % kWarp;
  const Index chunk =
      static_cast<Index>(blockIdx.x) * kGradientWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (chunk >= args.chunks) return;
  const auto of_lane = static_cast<int>(chunks_of_lane(args.tokens));
  const int lane = static_cast<int>(chunk / of_lane);
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first = static_cast<int>(chunk % of_lane) * kWarp;

  // Of token `first` + thread; what token t adds to b of itself and those before it, or only of
  // those.
  float own = 0.0F, earlier = 0.0F;
#pragma unroll 4
  for (int step = 0; step < kLanes; ++step) {
    const int place = step * (kWarp / kLanes) + thread / kLanes;
    float sum[2] = {};
    if (first + place < args.tokens) {
      const auto product = [&](const TokenSource& x, const TokenSource& y) {
        return partial_product(x, y, batch, head, first + place, thread % kLanes * 4);
      };
      sum[0] = product(args.q, args.dq) - product(args.a, args.da);
      sum[1] = product(args.r, args.dr);
    }
    // Token p's sum stands with all of its threads; thread p takes it.
    const int from = (thread - step * (kWarp / kLanes)) * kLanes;
    const bool is_mine = thread / (kWarp / kLanes) == step;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float x = __shfl_sync(0xFFFFFFFFU, group_sum<kLanes>(sum[i]), from & (kWarp - 1));
      if (is_mine) (i == 0 ? own : earlier) = x;
    }
  }
  const float next = __shfl_down_sync(0xFFFFFFFFU, earlier, 1);
  double total = static_cast<double>(own) + (thread < kWarp - 1 ? next : 0.0F);
  if (thread == kWarp - 1 && first + kWarp < args.tokens) {
    const float* products = args.chunk_products + (chunk + 1) * (D / 16);
#pragma unroll
    for (int i = 0; i < D / 16; ++i) total += products[i];
  }
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const double later = __shfl_down_sync(0xFFFFFFFFU, total, offset);
    if (thread + offset < kWarp) total += later;
  }
  const int token = first + thread;
  if (token >= args.tokens) return;
  const float alpha = args.decay.view.lane(batch, head)[token * args.decay.view.token];
  args.ddecay.lane(batch, head)[token * args.ddecay.token] = by_decay(total, alpha);
}

/// A key channel of a chunk a thread.
template <int D>
__global__ void __launch_bounds__(kGradientWarps* kWarp)
    channel_decay_gradient_kernel(const DecayGradientArgs args) {
  const Index place = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  const auto channel = static_cast<int>(place % D);
  const Index chunk = place / D;
  if (chunk >= args.chunks || channel >= args.q.width) return;
  const auto of_lane = static_cast<int>(chunks_of_lane(args.tokens));
  const int lane = static_cast<int>(chunk / of_lane);
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first = static_cast<int>(chunk % of_lane) * static_cast<int>(kChunkTokens);
  const int end = min(first + static_cast<int>(kChunkTokens), args.tokens);

  const auto number = [&](const TokenSource& x, int token) {
    return __ldg(x.view.lane(batch, head) + token * x.view.token + channel);
  };
  const auto product = [&](const TokenSource& x, const TokenSource& y, int token) {
    return x.view.data == nullptr ? 0.0 : static_cast<double>(number(x, token)) * number(y, token);
  };
  double total = end < args.tokens ? args.chunk_products[place + D] : 0.0;
#pragma unroll 4
  for (int token = end - 1; token >= first; --token) {
    total += product(args.q, args.dq, token) - product(args.a, args.da, token);
    args.ddecay.lane(batch, head)[token * args.ddecay.token + channel] =
        by_decay(total, number(args.decay, token));
    total += product(args.r, args.dr, token);
  }
}

}  // namespace

void run_decay_gradient(cudaStream_t stream, const RecurrenceInputs& inputs,
                        const RecurrenceBackward& args, const float* chunk_products) {
  const HeadDims& dims = inputs.dims;
  DecayGradientArgs gradient{.tokens = static_cast<int>(dims.tokens),
                             .heads = static_cast<int>(dims.heads),
                             .chunks = dims.lanes() * chunks_of_lane(dims.tokens),
                             .q = {dims, inputs.q},
                             .dq = {dims, args.dq},
                             .a = {dims, inputs.a},
                             .da = {dims, args.da},
                             .r = {dims, inputs.r},
                             .dr = {dims, args.dr},
                             .decay = {dims, inputs.decay},
                             .ddecay = args.ddecay,
                             .chunk_products = chunk_products};
  constexpr int kThreads = kGradientWarps * kWarp;
  with_head_size(dims.d_h, [&](auto d) {
    const Index of_chunk = inputs.decay_kind == Decay::columns ? d : kWarp;
    const auto blocks =
        static_cast<unsigned>((gradient.chunks * of_chunk + kThreads - 1) / kThreads);
    if (inputs.decay_kind == Decay::columns) {
      channel_decay_gradient_kernel<d><<<blocks, kThreads, 0, stream>>>(gradient);
    } else {
      decay_gradient_kernel<d><<<blocks, kThreads, 0, stream>>>(gradient);
    }
  });
  VLA_CUDA_LAUNCHED("decay_gradient_kernel");
}

}  // namespace vla_bench::mixers::cuda
