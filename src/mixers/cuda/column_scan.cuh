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
  TokenView<float> before, after;
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
  float scale[2][kTokens];
  // Results of a tile, written out together: no store stands between tokens.
  float before[kBefore ? kTokens * kColumns : 1];
  float after[kTokens * kColumns];
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
  copy(0, 0);
  close_group();
  for (int first = 0, buffer = 0; first < tokens; first += C, buffer ^= 1) {
    if (first + C < tokens) copy(buffer ^ 1, first + C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
#pragma unroll 4
    for (int t = 0; t < C; ++t) {
      float vector[E];
      if constexpr (kBefore) {
        load_spread<D, G>(tiles.b[buffer] + t * D, g, vector);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const float before = group_sum<G>(partial_dot<E>(m[r], vector));
          if (g == r) {
            tiles.before[t * kColumns + group + kGroups * r] = kPenalty ? before : -before;
          }
        }
      }
      if constexpr (kGated) {
        load_spread<D, G>(tiles.gate[buffer] + t * D, g, vector);
#pragma unroll
        for (int r = 0; r < R; ++r) {
#pragma unroll
          for (int e = 0; e < E; ++e) m[r][e] *= vector[e];
        }
      }
      load_spread<D, G>(tiles.x[buffer] + t * D, g, vector);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float own = tiles.y[buffer][t * kColumns + group + kGroups * r];
        const float y = kPenalty ? -own : own;
#pragma unroll
        for (int e = 0; e < E; ++e) m[r][e] = fmaf(vector[e], y, m[r][e]);
      }
      if constexpr (kPenalty) {
        if (nudges.next()) add_to_diagonal(args.penalty.nudge);
      }
      load_spread<D, G>(tiles.c[buffer] + t * D, g, vector);
      const float factor = scale != nullptr ? tiles.scale[buffer][t] : 1.0F;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float after = group_sum<G>(partial_dot<E>(m[r], vector));
        if (g == r) tiles.after[t * kColumns + group + kGroups * r] = after * factor;
      }
    }
    __syncthreads();
    if constexpr (kBefore) {
      write_tile<kColumns, C, kThreads>(tiles.before, args.before, batch, head, first_column,
                                        args.width, first, tokens);
    }
    write_tile<kColumns, C, kThreads>(tiles.after, args.after, batch, head, first_column,
                                      args.width, first, tokens);
  }
}

}  // namespace vla_bench::mixers::cuda
