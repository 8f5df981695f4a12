// The states of a matrix M (d, d) from its updates, in time, a column on a few threads: columns are
// independent once every update is known. recurrence_cuda.h needs it for S, vla.h for A:
//   before_t = M_{t-1}^T b_t;   M_t = D_t(M_{t-1}) + x_t y_t^T;   after_t = f_t M_t^T c_t
#pragma once

#include "mixers/recurrence/lines.cuh"

namespace vla_bench::mixers::cuda {

/// Counts tokens; true at every period-th (never for a period of 0) of the first `tokens`, without
/// a division a token.
class NudgeCounter {
 public:
  __device__ NudgeCounter(int period, int tokens) : period_(period), tokens_(tokens) { rewind(); }
  __device__ bool next() {
    if (--left_ != 0) return false;
    tokens_ -= period_;
    rewind();
    return true;
  }

 private:
  __device__ void rewind() { left_ = period_ <= tokens_ ? period_ : 0; }

  int period_, tokens_, left_;
};

/// M_0 and what is added to M besides the updates.
struct PenaltyState {
  float initial = 0.0F;   // M_0 = initial I
  float nudge = 0.0F;     // M += nudge I after every period-th token
  int period = 0;         // 0: never
  int nudged_tokens = 0;  // only the first may be nudged
};

struct ColumnsInTimeArgs {
  int tokens, heads;
  TokenSource x, y, b, c, decay;
  TokenSource factor;  // f: (B, T, H, 1), or 1 without one
  TokenSource shift;   // penalty: before_t += shift_t y_t; (B, T, H, 1)
  TokenTarget before, after;
  PenaltyState penalty;
};

enum class ColumnMatrix {
  plain,     // S without a residual: no `before`
  residual,  // S with one: `before` is written negated (dr)
  penalty,   // A: M_0 and nudge as given, updates subtracted
};

template <int D, class Shape_, ColumnMatrix kMatrix, Decay kDecay>
struct ColumnsInTime {
  using Shape = Shape_;
  using ColumnDecay = LineDecay<D, Shape, transposed(kDecay)>;
  static constexpr bool kBefore = kMatrix != ColumnMatrix::plain;
  static constexpr bool kPenalty = kMatrix == ColumnMatrix::penalty;
  static constexpr int C = Shape::kTokens;
  static constexpr int kColumns = Shape::kBlockLines;

  struct Tiles {
    InputTile<C, D> x, c;
    InputTile<C, kBefore ? D : 0> b;
    InputTile<C, kColumns> y;
    typename ColumnDecay::Tile decay;
    InputTile<C, 1> factor;
    InputTile<C, kPenalty ? 1 : 0> shift;
    OutputTile<C, kBefore ? kColumns : 0> before;
    OutputTile<C, kColumns> after;
  };
  /// What a thread reads of a token.
  struct Operands {
    typename Shape::Along x, c;
    float b[kBefore ? Shape::kChannels : 1];
    typename Shape::Own y;
    ColumnDecay decay;
    float factor, shift;
  };

  __device__ static void run(const ColumnsInTimeArgs& args, Tiles& tiles) {
    constexpr int R = Shape::kLines;
    constexpr int E = Shape::kChannels;
    const Pipeline<C, Shape::kThreads> pipeline(args.tokens, args.heads);
    const int first_column = static_cast<int>(blockIdx.y) * kColumns;

    float m[R][E] = {};  // the thread's columns
    const auto add_to_diagonal = [&](float value) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          if (Shape::channel(e) == first_column + Shape::line(r)) m[r][e] += value;
        }
      }
    };
    if constexpr (kPenalty) add_to_diagonal(args.penalty.initial);
    NudgeCounter nudges(args.penalty.period, args.penalty.nudged_tokens);

    const auto walk = [&](int, int buffer) {
      const auto load = [&](int t, Operands& token) {
        Shape::load(tiles.x.at(buffer, t), token.x);
        Shape::load(tiles.c.at(buffer, t), token.c);
        if constexpr (kBefore) Shape::load(tiles.b.at(buffer, t), token.b);
        token.decay.load(tiles.decay.at(buffer, t));
        Shape::load_own(tiles.y.at(buffer, t), token.y);
#pragma unroll
        for (int r = 0; r < R; ++r) token.y[r] = kPenalty ? -token.y[r] : token.y[r];
        token.factor = *tiles.factor.at(buffer, t);
        if constexpr (kPenalty) token.shift = *tiles.shift.at(buffer, t);
      };
      const auto use = [&](int t, const Operands& token) {
        typename Shape::Own before, after;
#pragma unroll
        for (int r = 0; r < R; ++r) {
          if constexpr (kBefore) {
            const float read = Shape::dot(m[r], token.b);
            before[r] = kPenalty ? fmaf(-token.shift, token.y[r], read) : -read;
          }
#pragma unroll
          for (int e = 0; e < E; ++e) {
            m[r][e] = fmaf(token.x[e], token.y[r], token.decay.times(m[r][e], r, e));
          }
        }
        if constexpr (kPenalty) {
          if (nudges.next()) add_to_diagonal(args.penalty.nudge);
        }
#pragma unroll
        for (int r = 0; r < R; ++r) after[r] = Shape::dot(m[r], token.c) * token.factor;
        if constexpr (kBefore) Shape::store_own(tiles.before.at(t), before);
        Shape::store_own(tiles.after.at(t), after);
      };
      walk_tile<Order::in_time, C, kUnroll<Shape>, kReadsAhead<D>, Operands>(load, use);
    };
    pipeline.template run<Order::in_time>(
        walk, pipeline.input(tiles.x, args.x), pipeline.input(tiles.c, args.c),
        pipeline.input(tiles.b, args.b), pipeline.input(tiles.y, args.y, first_column),
        pipeline.input(tiles.decay, args.decay, ColumnDecay::first_channel(first_column)),
        pipeline.input(tiles.factor, args.factor), pipeline.input(tiles.shift, args.shift),
        pipeline.output(tiles.before, args.before, first_column),
        pipeline.output(tiles.after, args.after, first_column));
  }
};

}  // namespace vla_bench::mixers::cuda
