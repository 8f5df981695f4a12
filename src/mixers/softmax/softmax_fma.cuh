// Tiles of float32 attention: products of rows in shared memory by plain multiply-adds.
//
// A thread block owns a tile of rows (queries, or keys in the backward's second kernel) and streams
// tiles of the other kind past it. Its threads form one or more groups of kTx by kTy: thread (tx,
// ty) holds the products of own rows ty + kTy r with streamed rows tx + kTx c, and the channels 4
// (tx + kTx m) .. + 3 of sums over streamed rows. The threads of one ty are in one warp, so they
// exchange data about their rows without a barrier of the block.
#pragma once

#include "core/cuda/warp.h"
#include "mixers/softmax/softmax_rows.cuh"
#include "ops/cuda/async_copy.cuh"

namespace vla_bench::mixers::softmax::cuda {

using ops::cuda::close_group;
using ops::cuda::copy_async_16;
using ops::cuda::copy_async_4;
using ops::cuda::wait_for_groups;

template <int kD, int kTx_, int kTy_, int kOwnRows, int kStreamRows, int kGroups_ = 1>
struct FmaTiles {
  static constexpr int kChannels = kD;
  static constexpr int kTx = kTx_, kTy = kTy_, kGroups = kGroups_;
  static constexpr int kRows = kOwnRows;     // own rows per thread
  static constexpr int kCols = kStreamRows;  // streamed rows per thread
  static constexpr int kOwn = kTy * kRows;
  static constexpr int kStream = kTx * kCols;
  static constexpr int kQuads = kD / (4 * kTx);  // channel quads per thread
  static constexpr int kGroupThreads = kTx * kTy;
  static constexpr int kThreads = kGroups * kGroupThreads;
  /// Least blocks per multiprocessor: with 256 threads each may have 255 registers, the maximum.
  static constexpr int kBlocks = 256 / kThreads;
  /// Steps of four inner indices unrolled together; one of 64 products fills the registers.
  static constexpr int kUnroll = kRows * kCols >= 64 ? 1 : 2;
  /// Floats between rows in shared memory. With d + 4 neighbouring rows start four banks apart, so
  /// reading a quad of each of eight rows has no bank conflicts.
  static constexpr int kStride = kD + 4;
  /// Floats between rows of weights: the 32 / kTx rows that a warp accesses at once start kTx banks
  /// apart (at least four, since they are read four at a time).
  static constexpr int kWeightStride = kStream + (kTx < 4 ? 4 : kTx);
  static constexpr int kWeights = kOwn * kWeightStride;

  static_assert(kD % (4 * kTx) == 0 && kWarp % kTx == 0 && kGroupThreads % kWarp == 0);
  static_assert(kStream % 4 == 0 && kWeightStride % 4 == 0);
};

/// Those of the largest heads, at every shape: 32 rows of q, k, v and d_o fill half of shared
/// memory.
using LargestTiles = FmaTiles<kMostChannels, 16, 16, 2, 2>;

/// Starts copying the channels channel .. channel + 3 of a token to shared memory; zeros beyond the
/// last token.
__device__ inline void copy_quad(float* to, const LaneRows<const float>& rows, int token,
                                 int channel, int tokens) {
  const bool inside = token < tokens;
  const float* from = rows.at(min(token, tokens - 1)) + channel;
  if (rows.vectors) {
    copy_async_16(to, from, inside);
  } else {
    unrolled<4>([&](int i) { copy_async_4(to + i, from + i, inside); });
  }
}

/// Starts copying rows first .. first + kTokens - 1 of a lane to shared memory; zeros beyond the
/// last token.
template <class Tiles, int kTokens>
__device__ inline void copy_rows(float* tile, const LaneRows<const float>& rows, int first,
                                 int tokens) {
  constexpr int kQuadsOfRow = Tiles::kChannels / 4;
  constexpr int kRowsAtOnce = Tiles::kThreads / kQuadsOfRow;
  static_assert(Tiles::kThreads % kQuadsOfRow == 0);
  const int channel = 4 * (static_cast<int>(threadIdx.x) % kQuadsOfRow);
#pragma unroll 4
  for (int row = threadIdx.x / kQuadsOfRow; row < kTokens; row += kRowsAtOnce) {
    copy_quad(tile + row * Tiles::kStride + channel, rows, first + row, channel, tokens);
  }
}

/// Component i, which the compiler has to know.
__device__ inline float component(const float4& x, int i) {
  return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}
__device__ inline float4 quad(const float* at) { return *reinterpret_cast<const float4*>(at); }

/// products[r][c] = own row . streamed row. One multiply-add a channel, in the order of the
/// channels: the same two rows give the same bits in every tile shape and in either role.
template <class Tiles>
__device__ inline void multiply_rows(const float* own, const float* stream, int tx, int ty,
                                     float (&products)[Tiles::kRows][Tiles::kCols]) {
  constexpr int kRows = Tiles::kRows, kCols = Tiles::kCols;
#pragma unroll
  for (auto& row : products) {
#pragma unroll
    for (float& product : row) product = 0.0F;
  }
#pragma unroll(Tiles::kUnroll)
  for (int channel = 0; channel < Tiles::kChannels; channel += 4) {
    float4 a[kRows], b[kCols];
    unrolled<kRows>(
        [&](int r) { a[r] = quad(own + (ty + Tiles::kTy * r) * Tiles::kStride + channel); });
    unrolled<kCols>(
        [&](int c) { b[c] = quad(stream + (tx + Tiles::kTx * c) * Tiles::kStride + channel); });
    unrolled<kRows, kCols>([&](int r, int c) {
      float sum = products[r][c];
      sum = fmaf(a[r].x, b[c].x, sum);
      sum = fmaf(a[r].y, b[c].y, sum);
      sum = fmaf(a[r].z, b[c].z, sum);
      products[r][c] = fmaf(a[r].w, b[c].w, sum);
    });
  }
}

/// Stores the products in shared memory, (kOwn, kWeightStride).
template <class Tiles>
__device__ inline void store_weights(const float (&values)[Tiles::kRows][Tiles::kCols], int tx,
                                     int ty, float* weights) {
  unrolled<Tiles::kRows, Tiles::kCols>([&](int r, int c) {
    weights[(ty + Tiles::kTy * r) * Tiles::kWeightStride + tx + Tiles::kTx * c] = values[r][c];
  });
}

__device__ inline void add_scaled(float factor, const float4& x, float4& sum) {
  sum.x = fmaf(factor, x.x, sum.x);
  sum.y = fmaf(factor, x.y, sum.y);
  sum.z = fmaf(factor, x.z, sum.z);
  sum.w = fmaf(factor, x.w, sum.w);
}

/// sums[r] += sum over the streamed rows of weight * row, in the order of the rows.
template <class Tiles>
__device__ inline void add_weighted_rows(const float* weights, const float* stream, int tx, int ty,
                                         float4 (&sums)[Tiles::kRows][Tiles::kQuads]) {
  constexpr int kRows = Tiles::kRows, kQuads = Tiles::kQuads;
#pragma unroll(Tiles::kUnroll)
  for (int j = 0; j < Tiles::kStream; j += 4) {
    float4 weight[kRows];
    unrolled<kRows>([&](int r) {
      weight[r] = quad(weights + (ty + Tiles::kTy * r) * Tiles::kWeightStride + j);
    });
    unrolled<4>([&](int i) {
      float4 x[kQuads];
      unrolled<kQuads>([&](int m) {
        x[m] = quad(stream + (j + i) * Tiles::kStride + 4 * (tx + Tiles::kTx * m));
      });
      unrolled<kRows>([&](int r) {
        unrolled<kQuads>([&](int m) { add_scaled(component(weight[r], i), x[m], sums[r][m]); });
      });
    });
  }
}

/// Reduces over kThreads neighbouring threads, a power of two; every thread gets the result.
template <int kThreads>
__device__ inline float sum_over_threads(float value) {
#pragma unroll
  for (int offset = kThreads / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  return value;
}

/// Reduces over the kTx threads of a row; every thread gets the result.
template <class Tiles>
__device__ inline float row_sum(float value) {
  return sum_over_threads<Tiles::kTx>(value);
}
template <class Tiles>
__device__ inline float row_max(float value) {
#pragma unroll
  for (int offset = Tiles::kTx / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, offset));
  }
  return value;
}

__device__ inline float4 scaled(float factor, const float4& x) {
  return make_float4(factor * x.x, factor * x.y, factor * x.z, factor * x.w);
}

}  // namespace vla_bench::mixers::softmax::cuda
