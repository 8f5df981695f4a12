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

/// The same for results.
struct TokenTarget {
  TokenView<float> view;
  int width = 0;
  bool wide = false;

  TokenTarget() = default;
  TokenTarget(const HeadDims& dims, const TokenView<float>& view_)
      : view(view_), width(static_cast<int>(dims.d_h)), wide(is_aligned(view_)) {}
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

/// Copies kWidth channels of kTokens consecutive tokens at a time into tiles (kTokens, kWidth).
/// Channels and tokens that do not exist become zeros, which every scan passes over without effect.
/// A thread copies the same channels of every tile, so that an address costs one addition.
template <int kWidth, int kTokens, int kThreads>
class TileCopier {
 public:
  __device__ TileCopier(const TokenRows& rows, int tokens)
      : data_(rows.data),
        stride_(rows.stride),
        tokens_(tokens),
        width_(rows.width),
        wide_(rows.wide),
        token_(static_cast<int>(threadIdx.x) / (kWidth / 4)),
        channel_(static_cast<int>(threadIdx.x) % (kWidth / 4) * 4),
        exists_(channel_ < rows.width) {}

  /// Asks for tokens from `first` on.
  __device__ void copy(float* tile, int first) const {
    if (wide_) {
      copy_quads(tile, first);
    } else {
      copy_singles(tile, first);
    }
  }

 private:
  static_assert(kWidth % 4 == 0);

  __device__ void copy_quads(float* tile, int first) const {
    constexpr int kAcross = kWidth / 4;
    constexpr int kAtOnce = kThreads / kAcross;  // tokens that the block copies at once
    static_assert(kThreads % kAcross == 0);
    const float* from = data_ + (first + token_) * stride_ + channel_;
    float* to = tile + token_ * kWidth + channel_;
#pragma unroll
    for (int step = 0; step < (kTokens + kAtOnce - 1) / kAtOnce; ++step) {
      const int token = token_ + step * kAtOnce;
      const bool valid = exists_ && first + token < tokens_;
      // A copy of nothing still names an address: one that exists.
      if (kTokens % kAtOnce == 0 || token < kTokens) {
        copy_ahead_16(to + step * kAtOnce * kWidth, valid ? from : data_, valid);
      }
      from += kAtOnce * stride_;
    }
  }

  __device__ void copy_singles(float* tile, int first) const {
    // Where a block has fewer threads than a token channels, a thread copies several of them.
    constexpr int kAcross = kWidth < kThreads ? kWidth : kThreads;
    constexpr int kAtOnce = kThreads / kAcross;
    const int token0 = static_cast<int>(threadIdx.x) / kAcross;
    const int channel0 = static_cast<int>(threadIdx.x) % kAcross;
#pragma unroll 1
    for (int token = token0; token < kTokens; token += kAtOnce) {
#pragma unroll 1
      for (int channel = channel0; channel < kWidth; channel += kAcross) {
        const bool valid = channel < width_ && first + token < tokens_;
        const float* from = valid ? data_ + (first + token) * stride_ + channel : data_;
        copy_ahead_4(tile + token * kWidth + channel, from, valid);
      }
    }
  }

  const float* data_;
  Index stride_;
  int tokens_;
  int width_;
  bool wide_;
  int token_, channel_;  // of this thread's first quad
  bool exists_;
};

/// The reverse, for a tile (kTokens, kWidth) of results.
template <int kWidth, int kTokens, int kThreads>
class TileWriter {
 public:
  __device__ TileWriter(const TokenTarget& to, int batch, int head, int first_channel, int tokens)
      : data_(to.view.data + batch * to.view.batch + head * to.view.head + first_channel),
        stride_(to.view.token),
        tokens_(tokens),
        width_(to.width - first_channel),
        wide_(to.wide),
        token_(static_cast<int>(threadIdx.x) / kAcross),
        channel_(static_cast<int>(threadIdx.x) % kAcross * 4) {}

  /// Writes tokens from `first` on; those and channels that do not exist are left out.
  __device__ void write(const float* tile, int first) const {
    write_times(tile, first, [](int) { return 1.0F; });
  }
  /// The same, each token times its own of `factors` (kTokens).
  __device__ void write(const float* tile, int first, const float* factors) const {
    write_times(tile, first, [&](int token) { return factors[token]; });
  }

 private:
  static_assert(kWidth % 4 == 0);
  static constexpr int kAcross = kWidth / 4;
  static constexpr int kAtOnce = kThreads / kAcross;  // tokens that the block writes at once
  static_assert(kThreads % kAcross == 0);

  template <class FactorOf>
  __device__ void write_times(const float* tile, int first, const FactorOf& factor_of) const {
    const int count = min(tokens_ - first, kTokens);
    float* to = data_ + (first + token_) * stride_ + channel_;
    const float* from = tile + token_ * kWidth + channel_;
    const int channels = min(width_ - channel_, 4);
#pragma unroll
    for (int step = 0; step < (kTokens + kAtOnce - 1) / kAtOnce; ++step) {
      const int token = token_ + step * kAtOnce;
      if (token < count) {
        const float factor = factor_of(token);
        if (wide_) {
          if (channels == 4) {
            const float4 quad = *reinterpret_cast<const float4*>(from);
            *reinterpret_cast<float4*>(to) =
                make_float4(quad.x * factor, quad.y * factor, quad.z * factor, quad.w * factor);
          }
        } else {
          for (int c = 0; c < channels; ++c) to[c] = from[c] * factor;
        }
      }
      to += kAtOnce * stride_;
      from += kAtOnce * kWidth;
    }
  }

  float* data_;
  Index stride_;
  int tokens_;
  int width_;
  bool wide_;
  int token_, channel_;  // of this thread's first quad
};

/// TileCopier's for one number a token, at data + t * stride.
template <int kTokens>
__device__ inline void copy_scalars(float* tile, const float* data, Index stride, int first,
                                    int tokens) {
  if (threadIdx.x >= kTokens) return;
  const int t = threadIdx.x;
  const bool valid = first + t < tokens;
  copy_ahead_4(tile + t, data + (valid ? (first + t) * stride : 0), valid);
}

/// Both tiles of a factor that there is none of: 1. Seen by other threads after a barrier.
template <int kTokens>
__device__ inline void fill_scalars(float (&tiles)[2][kTokens]) {
  if (threadIdx.x < kTokens) tiles[0][threadIdx.x] = tiles[1][threadIdx.x] = 1.0F;
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

/// values[r] of thread r of a group; what the other threads of the group get has no meaning. A
/// thread then stores one number where one thread would have stored all.
template <int R>
__device__ inline float pick(const float (&values)[R], int g) {
  float value = values[0];
#pragma unroll
  for (int r = 1; r < R; ++r) value = g == r ? values[r] : value;
  return value;
}

/// Runs use(i, operands) for i = 0 .. kTokens - 1, after load(i, operands). kAhead: the operands of
/// a token are read while the one before is at work, for a thread issues in order and would
/// otherwise wait for shared memory in every token's chain. It takes registers for two tokens.
template <int kTokens, int kUnroll, bool kAhead, class Operands, class Load, class Use>
__device__ inline void walk_tile(const Load& load, const Use& use) {
  Operands now;
  if constexpr (kAhead) load(0, now);
#pragma unroll kUnroll
  for (int i = 0; i < kTokens; ++i) {
    if constexpr (kAhead) {
      Operands next;
      load(i + 1 < kTokens ? i + 1 : i, next);
      use(i, now);
      now = next;
    } else {
      load(i, now);
      use(i, now);
    }
  }
}

/// 1 / sqrt(x) for normal x: the hardware's approximation and one step of Newton's.
__device__ inline float inverse_root(float x) {
  const float y = rsqrtf(x);
  const float half = 0.5F * x * y;
  return fmaf(fmaf(-half, y, 0.5F), y, y);
}

/// Counts tokens; true at every period-th (never for a period of 0), without a division a token.
class NudgeCounter {
 public:
  __device__ explicit NudgeCounter(int period) : period_(period), left_(period) {}
  __device__ bool next() {
    if (--left_ != 0) return false;
    left_ = period_;
    return true;
  }

 private:
  int period_, left_;
};

/// max(x, least), but NaN stays NaN.
__device__ inline float at_least(float x, float least) { return x < least ? least : x; }

}  // namespace vla_bench::mixers::cuda
