// What no state enters in a chunk: the matrices X and P of chunked.h, its decays, and z of the
// normaliser, by warps of their own.
#pragma once

#include "mixers/recurrence/chunk_channels.cuh"
#include "mixers/recurrence/lines.cuh"

namespace vla_bench::mixers::cuda {

/// A block (16, 16) of X or P.
struct GramItem {
  int i, j;
  bool is_x;
};

/// Block `rest` of a lower triangle's, row by row.
__device__ inline void set_lower(GramItem& item, int rest) {
  item.i = rest < 1 ? 0 : rest < 3 ? 1 : rest < 6 ? 2 : 3;
  item.j = rest - item.i * (item.i + 1) / 2;
}

/// The block that warp `warp` computes as its `turn`-th. Diagonal blocks of an X that is solved
/// with come first, a warp each: their inverses take as long as a product.
template <class Rule>
__device__ inline bool gram_item(int warp, int turn, GramItem& item) {
  constexpr int kBlocks = Rule::C / 16;
  constexpr int kBelow = kBlocks * (kBlocks - 1) / 2;
  constexpr int kTaken = Rule::kSolves ? kBlocks : 0;  // warps with a diagonal block
  constexpr int kOfX = Rule::kSolves ? kBelow : Rule::kHasR ? kBelow + kBlocks : 0;
  constexpr int kOfP = Rule::kHasP ? kBelow + kBlocks : 0;
  static_assert(kTaken < Rule::kGramWarps);
  if (warp < kTaken) {
    item = {warp, warp, true};
    return turn == 0;
  }
  const int rest = warp - kTaken + turn * (Rule::kGramWarps - kTaken);
  item.is_x = rest < kOfX;
  set_lower(item, item.is_x ? rest : rest - kOfX);
  if (Rule::kSolves && item.is_x) ++item.i;
  return rest < kOfX + kOfP;
}

/// Sums of log2 alpha: logs[t] over the tokens before t. In double, for the differences of sums
/// that stand behind a decay near 0. A decay of 0 counts as 1e-30.
template <class Rule>
__device__ inline void sum_logs(const float* decay, int count, float2 (&logs)[Rule::C + 1]) {
  static_assert(Rule::C <= kWarp);
  const int token = static_cast<int>(threadIdx.x) % kWarp;
  const bool exists = token < Rule::C && Rule::place(token) < count;
  const float alpha = exists ? decay[token] : 1.0F;
  double sum = static_cast<double>(log2f(alpha < 1e-30F ? 1e-30F : alpha));
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const double other = __shfl_up_sync(0xFFFFFFFFU, sum, offset);
    if (token >= offset) sum += other;
  }
  if (token == 0) logs[0] = make_float2(0.0F, 0.0F);
  const auto rounded = static_cast<float>(sum);
  const auto rest = static_cast<float>(sum - static_cast<double>(rounded));
  if (token < Rule::C) logs[token + 1] = make_float2(rounded, rest);
  __syncwarp();
}
__device__ inline float gamma_of(float2 to, float2 from) {
  return exp2f((to.x - from.x) + (to.y - from.y));
}

template <class Rule>
__device__ inline void write_decays(const float2 (&logs)[Rule::C + 1],
                                    typename Rule::Decays& decays) {
  const int token = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= Rule::C) return;
  decays.before[token] = gamma_of(logs[token], logs[0]);
  decays.through[token] =
      Rule::kInTime ? gamma_of(logs[token + 1], logs[0]) : gamma_of(logs[Rule::C], logs[token]);
  decays.after[token] = gamma_of(logs[Rule::C], logs[token + 1]);
  if (token == 0) decays.whole = gamma_of(logs[Rule::C], logs[0]);
}

/// 2: a block of P, or of -X; of an X that is solved with, diagonal blocks are inverted. Rows read
/// M, columns are written into it.
template <class Rule>
__device__ inline void compute_block(const Place& at, const GramItem& item,
                                     const typename Rule::Rows& rows, const float2* logs,
                                     typename Rule::Products& products) {
  constexpr int C = Rule::C;
  constexpr Grade kGrade = Rule::kGrade;
  float block[2][4];
  float* to = nullptr;
  const typename Rule::T* left_rows = nullptr;
  const typename Rule::T* right_rows = nullptr;
  const auto set = [&](float* matrix, const typename Rule::T* row) {
    to = matrix;
    if constexpr (Rule::kHasA) {
      left_rows = Rule::kInTime ? row : rows.a;
      right_rows = Rule::kInTime ? rows.a : row;
    }
  };
  if constexpr (Rule::kHasR) {
    if (item.is_x) set(products.x, rows.r);
  }
  if constexpr (Rule::kHasP) {
    if (!item.is_x) set(products.p, rows.q);
  }
  gram_block<kGrade, Rule::D>(at, left_rows, right_rows, item.i, item.j, block);
  const bool is_inverted = Rule::kSolves && item.is_x && item.i == item.j;
  const float sign = item.is_x && !is_inverted ? -1.0F : 1.0F;
  // In time q reads what its own token has written, against time a reads what its own has.
  const int read = Rule::kInTime && !item.is_x ? 1 : 0;
  const int written = Rule::kInTime || item.is_x ? 1 : 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = 16 * item.i + 8 * half + at.row();
    const int last = item.is_x ? row - 1 : row;  // the last column that enters
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int column = 16 * item.j + 8 * (w / 2) + at.token(w % 2);
      float& x = block[half][w];
      float factor = sign;
      if constexpr (Rule::kDecays) {
        factor *= column <= last ? gamma_of(logs[row + read], logs[column + written]) : 0.0F;
      }
      x = column <= last ? factor * x : 0.0F;
      sum += x;
    }
    *reinterpret_cast<float4*>(to + row * kRowWords<C> + 16 * item.j + 4 * at.t) =
        make_float4(prepared<kGrade>(block[half][0]), prepared<kGrade>(block[half][1]),
                    prepared<kGrade>(block[half][2]), prepared<kGrade>(block[half][3]));
    if constexpr (Rule::kNormalises) {
      sum = group_sum<4>(sum);
      if (at.t == 0) products.sums.inside[item.j][row] = sum;
    }
  }
  if constexpr (Rule::kSolves) {
    if (is_inverted) {
      __syncwarp();
      invert_unit_block<Rule::kGrade, kRowWords<C>>(to + 16 * item.i * (kRowWords<C> + 1));
    }
  }
}

/// 6: z . q_t with the z before the chunk, and the z behind it.
template <class Rule>
__device__ inline void advance_sums(const typename Rule::Rows& rows, typename Rule::Sums& now,
                                    typename Rule::Sums& next) {
  constexpr int D = Rule::D;
  constexpr int kStride = kRowStride<Rule::kGrade, D>;
  const int thread = static_cast<int>(threadIdx.x) - Rule::kStateWarps * kWarp;
  if constexpr (Rule::kPuts) {
    static_assert(Rule::C * 4 <= Rule::kGramWarps * kWarp);
    const int token = thread / 4 % Rule::C;
    float sum[4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      const int channel = 16 * i + 4 * (thread % 4);
      const float4 q = quad_of(rows.q + token * kStride + channel);
      const float4 z = quad_of(now.z + channel);
      sum[0] = fmaf(q.x, z.x, sum[0]);
      sum[1] = fmaf(q.y, z.y, sum[1]);
      sum[2] = fmaf(q.z, z.z, sum[2]);
      sum[3] = fmaf(q.w, z.w, sum[3]);
    }
    const float along = group_sum<4>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    if (thread % 4 == 0) now.along[token] = along;
  }
  if (thread >= D) return;
  float sum[4] = {};
#pragma unroll
  for (int t = 0; t < Rule::C; ++t) sum[t % 4] += number_of(rows.a[t * kStride + thread]);
  next.z[thread] = now.z[thread] + ((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

template <class Rule>
__device__ inline void prepare_chunk(typename Rule::Rows& rows, int count,
                                     typename Rule::Products& products,
                                     typename Rule::Products& next, typename Rule::Shared& shared) {
  if constexpr (Rule::kChannelsDecay) return prepare_channels<Rule>(rows, products, shared);
  const int warp = static_cast<int>(threadIdx.x) / kWarp - Rule::kStateWarps;
  const float2* logs = nullptr;
  if constexpr (Rule::kDecays) {
    sum_logs<Rule>(rows.decay, count, shared.logs[warp]);
    if (warp == Rule::kGramWarps - 1) write_decays<Rule>(shared.logs[warp], products.decays);
    logs = shared.logs[warp];
  }
  if constexpr (Rule::kNormalises) advance_sums<Rule>(rows, products.sums, next.sums);
  if constexpr ((Rule::kHasR || Rule::kHasP) && !Rule::kChannelsDecay) {
    const Place at;
    GramItem item;
#pragma unroll 1
    for (int turn = 0; gram_item<Rule>(warp, turn, item); ++turn) {
      compute_block<Rule>(at, item, rows, logs, products);
    }
  }
}

}  // namespace vla_bench::mixers::cuda
