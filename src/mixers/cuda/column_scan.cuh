// A matrix M (d, d) run through its updates in time, a column on a few threads: columns do not
// meet. What state_scan.h needs of S and vla.h of A when every update is known:
//   before_t = M_{t-1}^T b_t;   M_t = diag(g_t) M_{t-1} + x_t y_t^T;   after_t = M_t^T c_t
#pragma once

#include "mixers/cuda/token_tiles.cuh"

namespace vla_bench::mixers::cuda {

/// Few threads a column: with one, no sum needs a shuffle, and at d = 32 a warp holds a lane's
/// matrix. From d = 64 on a column takes four, else it would not fit into registers beside the
/// vectors.
template <int D>
struct ColumnShape {
  static constexpr int kGroup = D == 16 ? 2 : D == 32 ? 1 : 4;
  static constexpr int kThreads = D <= 32 ? 32 : 64;
  static constexpr int kColumns = kThreads / kGroup;  // of a block
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
};

template <int D, ColumnKind kKind>
__device__ inline void column_forward(const ColumnForward& args,
                                      ColumnForwardTiles<D, kKind>& tiles) {
  using Shape = ColumnShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int E = Shape::kChannels;
  constexpr int kColumns = Shape::kColumns;
  constexpr bool kBefore = kKind != ColumnKind::plain;
  constexpr bool kGated = kKind == ColumnKind::gated;
  constexpr bool kPenalty = kKind == ColumnKind::penalty;

  const int lane = blockIdx.x;
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first_column = blockIdx.y * kColumns;
  const int g = threadIdx.x % G;
  const int local = threadIdx.x / G;
  const int column = first_column + local;
  const int tokens = args.tokens;

  const TokenRows x_rows = args.x.lane(batch, head);
  const TokenRows y_rows = args.y.lane(batch, head, first_column);
  const TokenRows c_rows = args.c.lane(batch, head);
  const TokenRows b_rows = kBefore ? args.b.lane(batch, head) : TokenRows{};
  const TokenRows gate_rows = kGated ? args.gate.lane(batch, head) : TokenRows{};
  const float* scale = nullptr;
  if (args.scale != nullptr) {
    scale = args.scale + static_cast<Index>(batch) * tokens * args.heads + head;
  }

  const auto copy = [&](int buffer, int first) {
    copy_tile<D, C, Shape::kThreads>(tiles.x[buffer], x_rows, first, tokens);
    copy_tile<D, C, Shape::kThreads>(tiles.c[buffer], c_rows, first, tokens);
    if constexpr (kBefore) copy_tile<D, C, Shape::kThreads>(tiles.b[buffer], b_rows, first, tokens);
    if constexpr (kGated) {
      copy_tile<D, C, Shape::kThreads>(tiles.gate[buffer], gate_rows, first, tokens);
    }
    copy_tile<kColumns, C, Shape::kThreads>(tiles.y[buffer], y_rows, first, tokens);
    if (scale != nullptr) copy_scalars<C>(tiles.scale[buffer], scale, args.heads, first, tokens);
  };
  const auto write = [&](const TokenView<float>& to, int t, float value) {
    to.data[batch * to.batch + static_cast<Index>(t) * to.token + head * to.head + column] = value;
  };

  float m[E] = {};
  if constexpr (kPenalty) {
#pragma unroll
    for (int e = 0; e < E; ++e) {
      if (channel_of<G>(g, e) == column) m[e] = args.penalty.initial;
    }
  }
  copy(0, 0);
  close_group();
  for (int first = 0, buffer = 0; first < tokens; first += C, buffer ^= 1) {
    if (first + C < tokens) copy(buffer ^ 1, first + C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();
#pragma unroll 2
    for (int t = 0; t < C; ++t) {
      const bool writes = g == 0 && first + t < tokens && column < args.width;
      float vector[E];
      if constexpr (kBefore) {
        load_spread<D, G>(tiles.b[buffer] + t * D, g, vector);
        const float before = group_sum<G>(partial_dot<E>(m, vector));
        if (writes) write(args.before, first + t, kPenalty ? before : -before);
      }
      if constexpr (kGated) {
        load_spread<D, G>(tiles.gate[buffer] + t * D, g, vector);
#pragma unroll
        for (int e = 0; e < E; ++e) m[e] *= vector[e];
      }
      load_spread<D, G>(tiles.x[buffer] + t * D, g, vector);
      const float own = tiles.y[buffer][t * kColumns + local];
      const float y = kPenalty ? -own : own;
#pragma unroll
      for (int e = 0; e < E; ++e) m[e] = fmaf(vector[e], y, m[e]);
      if constexpr (kPenalty) {
        if (args.penalty.period > 0 && (first + t + 1) % args.penalty.period == 0) {
#pragma unroll
          for (int e = 0; e < E; ++e) {
            if (channel_of<G>(g, e) == column) m[e] += args.penalty.nudge;
          }
        }
      }
      load_spread<D, G>(tiles.c[buffer] + t * D, g, vector);
      const float after = group_sum<G>(partial_dot<E>(m, vector));
      if (writes) {
        write(args.after, first + t, scale != nullptr ? after * tiles.scale[buffer][t] : after);
      }
    }
    __syncthreads();
  }
}

}  // namespace vla_bench::mixers::cuda
