// The pipeline of every kernel that walks through tokens: tiles of consecutive tokens in shared
// memory, each input's twice, so that the next tile is on its way while one is at work.
#pragma once

#include <cuda_runtime.h>

#include "mixers/recurrence/token_view.h"
#include "ops/cuda/async_copy.cuh"

namespace vla_bench::mixers::cuda {

using ops::cuda::close_group;
using ops::cuda::copy_async_16;
using ops::cuda::copy_async_4;
using ops::cuda::wait_for_groups;

/// What a kernel reads, in shared memory. A width of 0 is an input that the kernel has not got, a
/// width of 1 a number a token.
template <int kTokens, int kWidth>
struct InputTile {
  alignas(16) float buffers[2][kWidth == 0 ? 4 : kTokens * kWidth];

  __device__ const float* at(int buffer, int token) const {
    return buffers[buffer] + token * kWidth;
  }
};

/// What a kernel computes, written out a tile at a time: no store stands between tokens.
template <int kTokens, int kWidth>
struct OutputTile {
  alignas(16) float values[kWidth == 0 ? 4 : kTokens * kWidth];

  __device__ float* at(int token) { return values + token * kWidth; }
};

/// A stage of a pipeline: load(buffer, first) asks for the tile of tokens from `first` on,
/// write(first) puts it out. Each is for one (batch, head) and its channels from first_channel on.
struct Stage {
  __device__ void load(int, int) const {}
  __device__ void write(int) const {}
};

/// Copies kWidth channels of kTokens tokens. Channels and tokens that do not exist become zeros,
/// which every walk passes over without effect. A thread copies the same channels of every tile, so
/// that an address costs one addition.
template <int kTokens, int kWidth, int kThreads>
class Input : public Stage {
 public:
  __device__ Input(InputTile<kTokens, kWidth>& tile, const TokenSource& source, int batch, int head,
                   int first_channel, int tokens)
      : tile_(tile),
        data_(source.view.lane(batch, head) + first_channel),
        stride_(source.view.token),
        tokens_(tokens),
        width_(source.width - first_channel),
        wide_(source.wide),
        token_(static_cast<int>(threadIdx.x) / (kWidth / 4)),
        channel_(static_cast<int>(threadIdx.x) % (kWidth / 4) * 4) {}

  __device__ void load(int buffer, int first) const {
    if (wide_) {
      copy_quads(tile_.buffers[buffer], first);
    } else {
      copy_singles(tile_.buffers[buffer], first);
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
      const bool valid = channel_ < width_ && first + token < tokens_;
      // A copy of nothing still names an address: one that exists.
      if (kTokens % kAtOnce == 0 || token < kTokens) {
        copy_async_16(to + step * kAtOnce * kWidth, valid ? from : data_, valid);
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
        copy_async_4(tile + token * kWidth + channel, from, valid);
      }
    }
  }

  InputTile<kTokens, kWidth>& tile_;
  const float* data_;
  Index stride_;
  int tokens_;
  int width_;
  bool wide_;
  int token_, channel_;  // of this thread's first quad
};

/// A number a token; without a source it is 1.
template <int kTokens, int kThreads>
class Input<kTokens, 1, kThreads> : public Stage {
 public:
  __device__ Input(InputTile<kTokens, 1>& tile, const TokenSource& source, int batch, int head, int,
                   int tokens)
      : tile_(tile),
        exists_(source.view.data != nullptr),
        data_(source.view.lane(batch, head)),
        stride_(source.view.token),
        tokens_(tokens) {
    if (!exists_ && threadIdx.x < kTokens) {
      tile.buffers[0][threadIdx.x] = tile.buffers[1][threadIdx.x] = 1.0F;
    }
  }

  __device__ void load(int buffer, int first) const {
    if (!exists_ || threadIdx.x >= kTokens) return;
    const int t = threadIdx.x;
    const bool valid = first + t < tokens_;
    copy_async_4(tile_.buffers[buffer] + t, data_ + (valid ? (first + t) * stride_ : 0), valid);
  }

 private:
  static_assert(kThreads >= kTokens);
  InputTile<kTokens, 1>& tile_;
  bool exists_;
  const float* data_;
  Index stride_;
  int tokens_;
};

template <int kTokens, int kThreads>
class Input<kTokens, 0, kThreads> : public Stage {
 public:
  __device__ Input(InputTile<kTokens, 0>&, const TokenSource&, int, int, int, int) {}
};

/// Writes kWidth channels of kTokens tokens, those that exist; without a target nothing. With
/// `factors` (kTokens), each token times its own.
template <int kTokens, int kWidth, int kThreads>
class Output : public Stage {
 public:
  __device__ Output(const OutputTile<kTokens, kWidth>& tile, const TokenTarget& target, int batch,
                    int head, int first_channel, int tokens, const float* factors)
      : tile_(tile),
        target_(target),
        start_(target.view.lane(batch, head) + first_channel + token0() * target.view.token +
               channel()),
        channels_(min(target.width - first_channel - channel(), 4)),
        tokens_(tokens),
        factors_(factors) {}

  __device__ void write(int first) const {
    if (target_.view.data == nullptr) return;
    const int count = min(tokens_ - first, kTokens);
    const Index stride = target_.view.token;
    float* to = start_ + first * stride;
    const float* from = tile_.values + token0() * kWidth + channel();
#pragma unroll
    for (int step = 0; step < (kTokens + kAtOnce - 1) / kAtOnce; ++step) {
      const int token = token0() + step * kAtOnce;
      if (token < count) {
        const float factor = factors_ != nullptr ? factors_[token] : 1.0F;
        if (target_.wide) {
          if (channels_ == 4) {
            const float4 quad = *reinterpret_cast<const float4*>(from);
            *reinterpret_cast<float4*>(to) =
                make_float4(quad.x * factor, quad.y * factor, quad.z * factor, quad.w * factor);
          }
        } else {
          for (int c = 0; c < channels_; ++c) to[c] = from[c] * factor;
        }
      }
      to += kAtOnce * stride;
      from += kAtOnce * kWidth;
    }
  }

 private:
  static_assert(kWidth % 4 == 0);
  static constexpr int kAcross = kWidth / 4;
  static constexpr int kAtOnce = kThreads / kAcross;  // tokens that the block writes at once
  static_assert(kThreads % kAcross == 0);

  // Of this thread's first quad.
  __device__ static int token0() { return static_cast<int>(threadIdx.x) / kAcross; }
  __device__ static int channel() { return static_cast<int>(threadIdx.x) % kAcross * 4; }

  const OutputTile<kTokens, kWidth>& tile_;
  const TokenTarget& target_;
  float* start_;
  int channels_;
  int tokens_;
  const float* factors_;
};

/// A number a token.
template <int kTokens, int kThreads>
class Output<kTokens, 1, kThreads> : public Stage {
 public:
  __device__ Output(const OutputTile<kTokens, 1>& tile, const TokenTarget& target, int batch,
                    int head, int, int tokens, const float*)
      : tile_(tile), target_(target), batch_(batch), head_(head), tokens_(tokens) {}

  __device__ void write(int first) const {
    const int t = threadIdx.x;
    if (target_.view.data == nullptr || t >= min(tokens_ - first, kTokens)) return;
    target_.view.lane(batch_, head_)[(first + t) * target_.view.token] = tile_.values[t];
  }

 private:
  static_assert(kThreads >= kTokens);
  const OutputTile<kTokens, 1>& tile_;
  const TokenTarget& target_;
  int batch_, head_, tokens_;
};

template <int kTokens, int kThreads>
class Output<kTokens, 0, kThreads> : public Stage {
 public:
  __device__ Output(const OutputTile<kTokens, 0>&, const TokenTarget&, int, int, int, int,
                    const float*) {}
};

/// An input that some calls have not got.
template <class Stage>
struct OptionalInput {
  bool exists;
  Stage stage;
  __device__ void load(int buffer, int first) const {
    if (exists) stage.load(buffer, first);
  }
  __device__ void write(int) const {}
};

/// What a kernel writes in its own way: write(first), by all threads.
template <class Write>
struct OwnOutput {
  Write write;
  __device__ void load(int, int) const {}
};
template <class Write>
OwnOutput(Write) -> OwnOutput<Write>;

enum class Order { in_time, against_time };

/// Tiles of kTokens tokens of one lane, (batch, head), by a block. Its first kThreads threads load
/// and write; a block with more has kBlockThreads.
template <int kTokens, int kThreads, int kBlockThreads = kThreads>
class Pipeline {
 public:
  const int tokens, lane, batch, head;

  __device__ Pipeline(int tokens_, int heads)
      : tokens(tokens_),
        lane(static_cast<int>(blockIdx.x)),
        batch(lane / heads),
        head(lane % heads) {}

  /// First token of the last tile.
  __device__ int last() const { return (tokens - 1) / kTokens * kTokens; }

  template <int kWidth>
  __device__ Input<kTokens, kWidth, kThreads> input(InputTile<kTokens, kWidth>& tile,
                                                    const TokenSource& source,
                                                    int first_channel = 0) const {
    return {tile, source, batch, head, first_channel, tokens};
  }
  template <int kWidth>
  __device__ OptionalInput<Input<kTokens, kWidth, kThreads>> optional_input(
      InputTile<kTokens, kWidth>& tile, const TokenSource& source) const {
    return {source.view.data != nullptr, input(tile, source)};
  }
  template <int kWidth>
  __device__ Output<kTokens, kWidth, kThreads> output(const OutputTile<kTokens, kWidth>& tile,
                                                      const TokenTarget& target,
                                                      int first_channel = 0,
                                                      const float* factors = nullptr) const {
    return {tile, target, batch, head, first_channel, tokens, factors};
  }

  /// Calls walk(first, buffer) for every tile: its tokens are those from `first` on, its inputs in
  /// `buffer`. Between a call and the next are two barriers, the outputs written between them.
  template <Order kOrder, class Walk, class... Stages>
  __device__ void run(const Walk& walk, const Stages&... stages) const {
    constexpr bool kInTime = kOrder == Order::in_time;
    constexpr int kStep = kInTime ? kTokens : -kTokens;
    const auto exists = [&](int first) { return kInTime ? first < tokens : first >= 0; };
    const bool copies = kThreads == kBlockThreads || threadIdx.x < kThreads;
    int first = kInTime ? 0 : last();
    if (copies) (stages.load(0, first), ...);
    close_group();
    for (int buffer = 0; exists(first); first += kStep, buffer ^= 1) {
      if (copies && exists(first + kStep)) (stages.load(buffer ^ 1, first + kStep), ...);
      close_group();
      wait_for_groups<1>();
      __syncthreads();  // also: the outputs before these are written
      walk(first, buffer);
      __syncthreads();
      if (copies) (stages.write(first), ...);
    }
  }
};

}  // namespace vla_bench::mixers::cuda
