// The walks of normaliser.h, for the kernels whose blocks they are.
#pragma once

#include "mixers/recurrence/lines.cuh"
#include "mixers/recurrence/normaliser.h"

namespace vla_bench::mixers::cuda {

/// Tokens whose loads are under way together: a load takes several hundred cycles, a token ten.
inline constexpr int kWalkTokens = 16;
/// Tokens whose denominators are summed up together, a thread a token.
inline constexpr int kDenominatorTokens = 32;

/// A row longer by one: threads of different tokens then read different banks.
template <int D>
using DenominatorProducts = float[kDenominatorTokens][D + 1];

/// c and 1 / max(c, floor) of a lane's tokens from `begin` to before `end`, by a block of at least
/// max(D, 32) threads; z is a thread's channel before them.
template <int D>
__device__ inline void walk_denominators(const NormaliserForward& args, int lane, int begin,
                                         int end, float z, DenominatorProducts<D>& products) {
  const auto tokens = static_cast<int>(args.dims.tokens);
  const auto heads = static_cast<int>(args.dims.heads);
  const auto width = static_cast<int>(args.dims.d_h);
  const int batch = lane / heads;
  const int head = lane % heads;
  const auto thread = static_cast<int>(threadIdx.x);
  const float* f = args.f.lane(batch, head) + thread;
  const float* q = args.q.lane(batch, head) + thread;
  const Index first_scalar = static_cast<Index>(batch) * tokens * heads + head;
  for (int first = begin; first < end; first += kDenominatorTokens) {
    const int count = min(kDenominatorTokens, end - first);
    if (thread < width) {
      for (int start = 0; start < count; start += kWalkTokens) {
        float f_ahead[kWalkTokens], q_ahead[kWalkTokens];
#pragma unroll
        for (int i = 0; i < kWalkTokens; ++i) {
          const bool valid = start + i < count;
          const Index at = first + start + i;
          f_ahead[i] = valid ? f[at * args.f.token] : 0.0F;
          q_ahead[i] = valid ? q[at * args.q.token] : 0.0F;
        }
#pragma unroll
        for (int i = 0; i < kWalkTokens; ++i) {
          z += f_ahead[i];
          products[start + i][thread] = z * q_ahead[i];
        }
      }
    }
    __syncthreads();
    if (thread < count) {
      float chain[4] = {};
      for (int i = 0; i < width; i += 4) {
#pragma unroll
        for (int j = 0; j < 4; ++j) chain[j] += products[thread][i + j];
      }
      const float c = (chain[0] + chain[1]) + (chain[2] + chain[3]);
      const Index at = first_scalar + static_cast<Index>(first + thread) * heads;
      args.denominator[at] = c;
      args.scale[at] = 1.0F / at_least(c, args.floor);
    }
    __syncthreads();
  }
}

/// The whole lane.
template <int D>
__device__ inline void walk_denominators(const NormaliserForward& args, int lane,
                                         DenominatorProducts<D>& products) {
  walk_denominators<D>(args, lane, 0, static_cast<int>(args.dims.tokens), 0.0F, products);
}

/// One lane's channel over `count` tokens from `first` on, which come in time for dq and against it
/// for df; `sum` is z before them, dz behind them.
__device__ inline void walk_gradients(const NormaliserWalks& args, int tokens, int heads, int lane,
                                      int channel, int first, int count, bool in_time, float sum) {
  const int batch = lane / heads;
  const int head = lane % heads;
  const float* dc = args.d_denominator + static_cast<Index>(batch) * tokens * heads + head;
  const TokenView<const float>& source = in_time ? args.f : args.q;
  const TokenView<float>& target = in_time ? args.dq : args.df;
  const float* from = source.lane(batch, head) + channel;
  float* to = target.lane(batch, head) + channel;
  for (int start = 0; start < count; start += kWalkTokens) {
    float value[kWalkTokens], dc_ahead[kWalkTokens];
#pragma unroll
    for (int i = 0; i < kWalkTokens; ++i) {
      const bool valid = start + i < count;
      const Index at = first + (in_time ? start + i : count - 1 - start - i);
      value[i] = valid ? from[at * source.token] : 0.0F;
      dc_ahead[i] = valid ? dc[at * heads] : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kWalkTokens; ++i) {
      if (start + i >= count) continue;
      const Index at = first + (in_time ? start + i : count - 1 - start - i);
      sum = in_time ? sum + value[i] : fmaf(dc_ahead[i], value[i], sum);
      to[at * target.token] = in_time ? dc_ahead[i] * sum : sum;
    }
  }
}

/// A block's lane, its channels from first_channel on, a thread a channel; `width` of the whole.
__device__ inline void walk_gradients(const NormaliserWalks& args, int tokens, int heads, int width,
                                      int first_channel, int channels, bool in_time) {
  const int channel = first_channel + static_cast<int>(threadIdx.x);
  if (static_cast<int>(threadIdx.x) >= channels || channel >= width) return;
  const auto lane = static_cast<int>(blockIdx.x);
  walk_gradients(args, tokens, heads, lane, channel, 0, tokens, in_time, 0.0F);
}

}  // namespace vla_bench::mixers::cuda
