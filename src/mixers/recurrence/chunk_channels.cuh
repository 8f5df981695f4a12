// X and P of a chunk whose key channels decay apart, and its rows times their decays, so that what
// the state's warps do with them is what they do without a decay:
//   r_t * Gamma(0, t - 1), q_t * Gamma(0, t), a_s * Gamma(s, C), channel by channel.
// Gamma(s, t) is the product of decays, never a quotient of two, which would not exist where a
// decay is 0: a column s of X is a_s, times the next token's decays after each product with a row
// of r. Against time X and P are the same numbers, a row for each a_s.
#pragma once

#include "mixers/recurrence/chunk_rule.cuh"

namespace vla_bench::mixers::cuda {

/// Threads that share a column of X or P, a part of the channels each.
constexpr int kColumnThreads = 8;

/// The sums of x over the threads of a column: thread p has those of rows 2 p and 2 p + 1.
__device__ inline float2 sum_rows(const float (&x)[16]) {
  const int part = static_cast<int>(threadIdx.x) % kColumnThreads;
  float y[8], z[4], w[2];
  const auto halve = [part](const auto& from, auto& to, int kept) {
    constexpr int kCount = sizeof(to) / sizeof(float);
    const bool upper = (part & kept) != 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float sent = upper ? from[i] : from[kCount + i];
      const float own = upper ? from[kCount + i] : from[i];
      to[i] = own + __shfl_xor_sync(0xFFFFFFFFU, sent, kept);
    }
  };
  halve(x, y, 4);
  halve(y, z, 2);
  halve(z, w, 1);
  return make_float2(w[0], w[1]);
}

/// The word of a row of a (16, 16) matrix that token s has (chunk_rows.cuh).
__device__ constexpr int word_of_token(int s) {
  const int n = s % 8;
  const int place = n < 4 ? 2 * n : 2 * ((n - 4) ^ 2) + 1;
  return place / 2 * 4 + s / 8 * 2 + place % 2;
}

/// 2: what token s has of X's part below the diagonal, or of P, by the threads of 4 warps. `rows`:
/// r or q.
template <class Rule, bool kOfX>
__device__ inline void compute_columns(const float* rows, const typename Rule::Rows& of_chunk,
                                       float* matrix) {
  constexpr int D = Rule::D;
  constexpr int kStride = kRowWords<D>;
  constexpr int kShare = D / kColumnThreads;
  const int thread = static_cast<int>(threadIdx.x) % (16 * kColumnThreads);
  const int part = thread % kColumnThreads;
  const int s = thread / kColumnThreads;
  // Channels part, part + 8, ...: neighbouring threads read neighbouring words.
  float left[kShare];  // a_s of the channels, times the decays of the tokens since
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    left[i] = of_chunk.a[Rule::place(s) * kStride + part + kColumnThreads * i];
  }
  float x[16];
#pragma unroll
  for (int t = 0; t < 16; ++t) {
    const int at = Rule::place(t) * kStride + part;
    float sum[2] = {};
    const bool decays = t > s;
    const auto decay = [&] {
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        if (decays) left[i] *= of_chunk.decays[at + kColumnThreads * i];
      }
    };
    if (!kOfX) decay();
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      sum[i % 2] = fmaf(left[i], rows[at + kColumnThreads * i], sum[i % 2]);
    }
    if (kOfX) decay();
    x[t] = (kOfX ? t > s : t >= s) ? sum[0] + sum[1] : 0.0F;
  }
  const float2 sums = sum_rows(x);
  const auto put = [&](int t, float sum) {
    const int row = Rule::kInTime ? t : Rule::place(s);
    const int column = Rule::kInTime ? s : Rule::place(t);
    matrix[row * kRowWords<16> + word_of_token(column)] = prepared<Rule::kGrade>(sum);
  };
  put(2 * part, sums.x);
  put(2 * part + 1, sums.y);
}

/// r, q and a times their decays, a channel a thread.
template <class Rule>
__device__ inline void scale_reads(int channel, typename Rule::Rows& rows, float& left) {
  constexpr int kStride = kRowWords<Rule::D>;
  float gamma = 1.0F;
#pragma unroll
  for (int t = 0; t < Rule::C; ++t) {
    const int at = Rule::place(t) * kStride + channel;
    if constexpr (Rule::kHasR) rows.r[at] = prepared<Rule::kGrade>(gamma * rows.r[at]);
    gamma *= rows.decays[at];
    if constexpr (Rule::kHasQ) rows.q[at] = prepared<Rule::kGrade>(gamma * rows.q[at]);
  }
  left = gamma;
}
template <class Rule>
__device__ inline void scale_writes(int channel, typename Rule::Rows& rows) {
  constexpr int kStride = kRowWords<Rule::D>;
  float gamma = 1.0F;
#pragma unroll
  for (int t = Rule::C - 1; t >= 0; --t) {
    const int at = Rule::place(t) * kStride + channel;
    rows.a[at] = prepared<Rule::kGrade>(gamma * rows.a[at]);
    gamma *= rows.decays[at];
  }
}

/// By the warps of Gram matrices.
template <class Rule>
__device__ inline void prepare_channels(typename Rule::Rows& rows,
                                        typename Rule::Products& products,
                                        typename Rule::Shared& shared) {
  static_assert(Rule::C == 16);
  constexpr int kThreads = Rule::kLoadThreads;
  const int thread = static_cast<int>(threadIdx.x) - Rule::kStateWarps * kWarp;
  const int group = thread / (16 * kColumnThreads);
  if constexpr (Rule::kHasR) {
    if (group == 0) compute_columns<Rule, true>(rows.r, rows, products.x);
  }
  if constexpr (Rule::kHasP) {
    if (group == kThreads / (16 * kColumnThreads) - 1) {
      compute_columns<Rule, false>(rows.q, rows, products.p);
    }
  }
  // Chunks take the two sets of products in turn.
  shared.gram_barrier.sync(&products == &shared.products[0] ? 0 : 1);
  if (thread < Rule::D) scale_reads<Rule>(thread, rows, products.left[thread]);
  if constexpr (Rule::kHasA) {
    if (thread >= kThreads - Rule::D) scale_writes<Rule>(kThreads - 1 - thread, rows);
  }
  if constexpr (Rule::kSolves) {
    if (thread / kWarp == kThreads / kWarp / 2) {
      invert_unit_block<Rule::kGrade, kRowWords<16>>(products.x);
    }
  }
}

/// S times the decays of its columns.
template <int D>
__device__ inline void decay_channels(const Place& at, const float* left, TileRow<D / 8>& s) {
#pragma unroll
  for (int m = 0; m < D / 16; ++m) {
    const float4 x = quad_of(left + 16 * m + 4 * at.t);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      s[2 * m][2 * half] *= x.x;
      s[2 * m + 1][2 * half] *= x.y;
      s[2 * m][2 * half + 1] *= x.z;
      s[2 * m + 1][2 * half + 1] *= x.w;
    }
  }
}

}  // namespace vla_bench::mixers::cuda
