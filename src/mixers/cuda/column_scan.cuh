// A matrix M (d, d) run through its updates in time, a column on a few threads: columns do not
// meet. What state_scan.h needs of S and vla.h of A when every update is known:
//   before_t = M_{t-1}^T b_t;   M_t = diag(g_t) M_{t-1} + x_t y_t^T;   after_t = M_t^T c_t
#pragma once

#include "mixers/cuda/token_tiles.cuh"

namespace vla_bench::mixers::cuda {

/// A column lies on kGroup threads. What limits these passes at small d is the 128 bytes a cycle
/// that a multiprocessor reads from shared memory, so a thread holds its share of two columns there
/// and a vector read serves both. From d = 64 on the registers hold one.
template <int D>
struct ColumnShape {
  static constexpr int kGroup = D == 32 ? 2 : 4;
  static constexpr int kThreads = D <= 32 ? 32 : 64;
  static constexpr int kThreadColumns = D <= 32 ? 2 : 1;
  static constexpr int kGroups = kThreads / kGroup;
  static constexpr int kColumns = kGroups * kThreadColumns;  // of a block
  static constexpr int kChannels = D / kGroup;
  static constexpr int kTokens = D == 128 ? 8 : 16;
  static constexpr bool kAhead = D <= 64;  // walk_tile's: registers for two tokens' vectors
};

/// M_0 and what is added to M besides the updates.
struct PenaltyState {
  float initial = 0.0F;  // M_0 = initial I
  float nudge = 0.0F;    // M += nudge I after every period-th token
  int period = 0;        // 0: never
};

struct ColumnForward {
  int tokens, heads, width;
  TokenSource x, y, b, c, gate;
  const float* scale;  // (B, T, H), multiplies `after`; or null
  TokenTarget before, after;
  PenaltyState penalty;
};

enum class ColumnKind {
  plain,     // linear attention's S: no `before`, no gate
  residual,  // S with a residual: `before` is written negated (dr)
  gated,     // the same with a gate
  penalty,   // A: M_0 and nudge as given, updates subtracted
};

/// Two tiles of everything that column_forward reads.
template <int D, ColumnKind kKind>
struct ColumnForwardTiles {
  static constexpr int kTokens = ColumnShape<D>::kTokens;
  static constexpr int kColumns = ColumnShape<D>::kColumns;
  static constexpr bool kBefore = kKind != ColumnKind::plain;
  static constexpr bool kGated = kKind == ColumnKind::gated;
  alignas(16) float x[2][kTokens * D];
  alignas(16) float c[2][kTokens * D];
  alignas(16) float b[2][kBefore ? kTokens * D : 4];
  alignas(16) float gate[2][kGated ? kTokens * D : 4];
  alignas(16) float y[2][kTokens * kColumns];
  float scale[2][kTokens];  // 1 without one
  // Results of a tile, written out together: no store stands between tokens.
  alignas(16) float before[kBefore ? kTokens * kColumns : 4];
  alignas(16) float after[kTokens * kColumns];
};

/// What a thread reads of a token.
template <int D, ColumnKind kKind>
struct ColumnForwardOperands {
  static constexpr int kChannels = ColumnShape<D>::kChannels;
  float x[kChannels], c[kChannels];
  float b[kKind != ColumnKind::plain ? kChannels : 1];
  float gate[kKind == ColumnKind::gated ? kChannels : 1];
  float y[ColumnShape<D>::kThreadColumns];
  float factor;
};

template <int D, ColumnKind kKind>
__device__ inline void column_forward(const ColumnForward& args,
                                      ColumnForwardTiles<D, kKind>& tiles) {
  using Shape = ColumnShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int E = Shape::kChannels;
  constexpr int R = Shape::kThreadColumns;
  constexpr int kGroups = Shape::kGroups;
  constexpr int kColumns = Shape::kColumns;
  constexpr bool kBefore = kKind != ColumnKind::plain;
  constexpr bool kGated = kKind == ColumnKind::gated;
  constexpr bool kPenalty = kKind == ColumnKind::penalty;
  using Operands = ColumnForwardOperands<D, kKind>;

  constexpr int kThreads = Shape::kThreads;
  const int lane = static_cast<int>(blockIdx.x);
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first_column = static_cast<int>(blockIdx.y) * kColumns;
  const int g = threadIdx.x % G;
  const int group = threadIdx.x / G;  // column r of the thread: group + kGroups r
  const int tokens = args.tokens;
  const float* scale = nullptr;
  if (args.scale != nullptr) {
    scale = args.scale + static_cast<Index>(batch) * tokens * args.heads + head;
  }

  const TileCopier<D, C, kThreads> x_rows(args.x.lane(batch, head), tokens);
  const TileCopier<kColumns, C, kThreads> y_rows(args.y.lane(batch, head, first_column), tokens);
  const TileCopier<D, C, kThreads> c_rows(args.c.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> b_rows(kBefore ? args.b.lane(batch, head) : TokenRows{}, tokens);
  const TileCopier<D, C, kThreads> gate_rows(kGated ? args.gate.lane(batch, head) : TokenRows{},
                                             tokens);
  const TileWriter<kColumns, C, kThreads> after_rows(args.after, batch, head, first_column, tokens);
  const TileWriter<kColumns, C, kThreads> before_rows(kBefore ? args.before : TokenTarget{}, batch,
                                                      head, first_column, tokens);
  const auto copy = [&](int buffer, int first) {
    x_rows.copy(tiles.x[buffer], first);
    c_rows.copy(tiles.c[buffer], first);
    if constexpr (kBefore) b_rows.copy(tiles.b[buffer], first);
    if constexpr (kGated) gate_rows.copy(tiles.gate[buffer], first);
    y_rows.copy(tiles.y[buffer], first);
    if (scale != nullptr) copy_scalars<C>(tiles.scale[buffer], scale, args.heads, first, tokens);
  };

  float m[R][E] = {};
  const auto add_to_diagonal = [&](float value) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int column = first_column + group + kGroups * r;
#pragma unroll
      for (int e = 0; e < E; ++e) {
        if (channel_of<G>(g, e) == column) m[r][e] += value;
      }
    }
  };
  if constexpr (kPenalty) add_to_diagonal(args.penalty.initial);
  NudgeCounter nudges(args.penalty.period);
  if (scale == nullptr) fill_scalars(tiles.scale);
  copy(0, 0);
  close_group();
  for (int first = 0, buffer = 0; first < tokens; first += C, buffer ^= 1) {
    if (first + C < tokens) copy(buffer ^ 1, first + C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
    const auto load = [&](int t, Operands& token) {
      load_spread<D, G>(tiles.x[buffer] + t * D, g, token.x);
      load_spread<D, G>(tiles.c[buffer] + t * D, g, token.c);
      if constexpr (kBefore) load_spread<D, G>(tiles.b[buffer] + t * D, g, token.b);
      if constexpr (kGated) load_spread<D, G>(tiles.gate[buffer] + t * D, g, token.gate);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float y = tiles.y[buffer][t * kColumns + group + kGroups * r];
        token.y[r] = kPenalty ? -y : y;
      }
      token.factor = tiles.scale[buffer][t];
    };
    const auto use = [&](int t, const Operands& token) {
      float before[R], after[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        if constexpr (kBefore) before[r] = group_sum<G>(partial_dot<E>(m[r], token.b));
#pragma unroll
        for (int e = 0; e < E; ++e) {
          m[r][e] = fmaf(token.x[e], token.y[r], kGated ? m[r][e] * token.gate[e] : m[r][e]);
        }
      }
      if constexpr (kPenalty) {
        if (nudges.next()) add_to_diagonal(args.penalty.nudge);
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {
        after[r] = group_sum<G>(partial_dot<E>(m[r], token.c)) * token.factor;
      }
      if (g < R) {
        const int at = t * kColumns + group + kGroups * g;
        if constexpr (kBefore) {
          const float value = pick(before, g);
          tiles.before[at] = kPenalty ? value : -value;
        }
        tiles.after[at] = pick(after, g);
      }
    };
    walk_tile<C, 2, Shape::kAhead, Operands>(load, use);
    __syncthreads();
    if constexpr (kBefore) {
      before_rows.write(tiles.before, first);
    }
    after_rows.write(tiles.after, first);
  }
}

}  // namespace vla_bench::mixers::cuda
