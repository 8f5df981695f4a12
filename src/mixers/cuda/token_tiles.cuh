// Tiles of consecutive tokens in shared memory, copied ahead of their use.
#pragma once

#include <cuda_runtime.h>

#include "mixers/cuda/token_view.h"

namespace vla_bench::mixers::cuda {

/// One lane's tokens: `width` channels of token t at data + t * stride. `wide`: four channels at
/// once.
struct TokenRows {
  const float* data = nullptr;
  Index stride = 0;
  int width = 0;
  bool wide = false;
};

/// A view on its way into a kernel.
struct TokenSource {
  TokenView<const float> view;
  int width = 0;
  bool wide = false;

  TokenSource() = default;
  TokenSource(const HeadDims& dims, const TokenView<const float>& view_)
      : view(view_), width(static_cast<int>(dims.d_h)), wide(is_aligned(view_)) {}

  /// Channels from first_channel on.
  __device__ TokenRows lane(int batch, int head, int first_channel = 0) const {
    return {view.data + batch * view.batch + head * view.head + first_channel, view.token,
            width - first_channel, wide};
  }
};

__device__ inline void copy_ahead_4(float* to, const float* from, bool valid) {
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 4 : 0;  // the rest of the 4 is filled with zeros
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(from), "r"(bytes)
               : "memory");
}
__device__ inline void copy_ahead_16(float* to, const float* from, bool valid) {
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes)
               : "memory");
}
/// Closes a group of copies.
__device__ inline void close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Returns when at most kOpen of this thread's latest groups are under way; what they copied is
/// seen by other threads after a barrier.
template <int kOpen>
__device__ inline void wait_for_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
}

/// Asks for kWidth channels of tokens first .. first + kTokens - 1 in `tile` (kTokens, kWidth).
/// Channels and tokens that do not exist become zeros, which every scan passes over without effect.
template <int kWidth, int kTokens, int kThreads>
__device__ inline void copy_tile(float* tile, const TokenRows& rows, int first, int tokens) {
  static_assert(kWidth % 4 == 0);
  if (rows.wide) {
    constexpr int kQuads = kWidth / 4;
    for (int i = threadIdx.x; i < kTokens * kQuads; i += kThreads) {
      const int t = i / kQuads;
      const int channel = 4 * (i % kQuads);
      const bool valid = first + t < tokens && channel < rows.width;
      // A copy of nothing still names an address: one that exists.
      const float* from = rows.data + (valid ? (first + t) * rows.stride + channel : 0);
      copy_ahead_16(tile + t * kWidth + channel, from, valid);
    }
  } else {
    for (int i = threadIdx.x; i < kTokens * kWidth; i += kThreads) {
      const int t = i / kWidth;
      const int channel = i % kWidth;
      const bool valid = first + t < tokens && channel < rows.width;
      const float* from = rows.data + (valid ? (first + t) * rows.stride + channel : 0);
      copy_ahead_4(tile + i, from, valid);
    }
  }
}

/// The same for one number a token, at data + t * stride.
template <int kTokens>
__device__ inline void copy_scalars(float* tile, const float* data, Index stride, int first,
                                    int tokens) {
  if (threadIdx.x >= kTokens) return;
  const int t = threadIdx.x;
  const bool valid = first + t < tokens;
  copy_ahead_4(tile + t, data + (valid ? (first + t) * stride : 0), valid);
}

// A vector of D channels spread over a group of G neighbouring threads: thread g holds E = D / G
// channels in quads, quad m being channels 4 (g + G m) .. + 3, so that a group reads one stretch of
// shared memory at a time and other groups of the warp read the same.

template <int D, int G>
inline constexpr int kChannelsOfThread = D / G;

template <int D, int G>
__device__ inline void load_spread(const float* from, int g, float (&to)[kChannelsOfThread<D, G>]) {
#pragma unroll
  for (int m = 0; m < kChannelsOfThread<D, G> / 4; ++m) {
    const float4 quad = *reinterpret_cast<const float4*>(from + 4 * (g + G * m));
    to[4 * m] = quad.x;
    to[4 * m + 1] = quad.y;
    to[4 * m + 2] = quad.z;
    to[4 * m + 3] = quad.w;
  }
}

template <int D, int G>
__device__ inline void store_spread(float* to, int g,
                                    const float (&from)[kChannelsOfThread<D, G>]) {
#pragma unroll
  for (int m = 0; m < kChannelsOfThread<D, G> / 4; ++m) {
    *reinterpret_cast<float4*>(to + 4 * (g + G * m)) =
        make_float4(from[4 * m], from[4 * m + 1], from[4 * m + 2], from[4 * m + 3]);
  }
}

/// Channel of element e of thread g.
template <int G>
__device__ constexpr int channel_of(int g, int e) {
  return 4 * (g + G * (e / 4)) + e % 4;
}

/// x . y of a thread's share, in four chains: additions take four cycles each.
template <int E>
__device__ inline float partial_dot(const float (&x)[E], const float (&y)[E]) {
  float chain[4] = {};
#pragma unroll
  for (int e = 0; e < E; ++e) chain[e % 4] = fmaf(x[e], y[e], chain[e % 4]);
  return (chain[0] + chain[1]) + (chain[2] + chain[3]);
}

/// The sum over a group of G neighbouring threads, in each of them; same order in all of them.
template <int G>
__device__ inline float group_sum(float value) {
#pragma unroll
  for (int offset = 1; offset < G; offset *= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  return value;
}

/// max(x, least), but NaN stays NaN.
__device__ inline float at_least(float x, float least) { return x < least ? least : x; }

}  // namespace vla_bench::mixers::cuda
