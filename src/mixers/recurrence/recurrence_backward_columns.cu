// The column passes of recurrence_cuda.h: dq and dr from S, run through again in time, and da from
// dS, against time; both at once, on different blocks.
#include "core/cuda/check.h"
#include "mixers/recurrence/columns_in_time.cuh"
#include "mixers/recurrence/normaliser.cuh"
#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

struct AgainstTimeArgs {
  int tokens, heads;
  TokenSource d_o, e, de;  // along columns
  TokenSource q, r, a;     // across columns
  TokenSource decay, scale;
  const float* checkpoints;
  TokenTarget da, ddecay;
};

/// dS_t = D_{t+1}(dS_{t+1}) - de_{t+1} r_{t+1}^T + dn_t q_t^T;  da_t = dS_t^T e_t. kHistory: with
/// the sums over columns of dS_ij (S_{t-1})_ij.
template <int D, class Shape_, Decay kDecay, bool kResidual, bool kHistory>
struct ColumnsAgainstTime {
  using Shape = Shape_;
  using ColumnDecay = LineDecay<D, Shape, transposed(kDecay)>;
  static constexpr int C = Shape::kTokens;
  static constexpr int kColumns = Shape::kBlockLines;

  struct Tiles {
    InputTile<C, D> y, e;
    InputTile<C, kResidual ? D : 0> de;
    InputTile<C, kColumns> q;
    InputTile<C, kResidual ? kColumns : 0> r;
    InputTile<C, kHistory ? kColumns : 0> a;
    typename ColumnDecay::Tile decay;
    InputTile<C, 1> scale;
    OutputTile<C, kColumns> da;
    OutputTile<C, kHistory ? kColumns : 0> ddecay;
  };
  /// What a thread reads of a token.
  struct Operands {
    typename Shape::Along y, e;
    float de[kResidual ? Shape::kChannels : 1];
    typename Shape::Own q, r;
    ColumnDecay decay;
  };

  __device__ static void run(const AgainstTimeArgs& args, Tiles& tiles) {
    constexpr int R = Shape::kLines;
    constexpr int E = Shape::kChannels;
    const Pipeline<C, Shape::kThreads> pipeline(args.tokens, args.heads);
    const int first_column = static_cast<int>(blockIdx.y) * kColumns;
    float ds[R][E] = {};  // the thread's columns
    float ahead[R][E];    // the checkpoint of the next segment visited, asked for one segment early
    const auto ask_for_checkpoint = [&](int first) {
      const Index segments = (pipeline.tokens + C - 1) / C;
      const Index segment = pipeline.lane * segments + first / C;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const int column = first_column + Shape::line(r);
#pragma unroll
        for (int e = 0; e < E; ++e) {
          ahead[r][e] = args.checkpoints[(segment * D + Shape::channel(e)) * D + column];
        }
      }
    };

    const auto walk = [&](int first, int buffer) {
      float states[kHistory ? C : 1][R][E];  // S before each token
      if constexpr (kHistory) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
#pragma unroll
          for (int e = 0; e < E; ++e) states[0][r][e] = ahead[r][e];
        }
        if (first > 0) ask_for_checkpoint(first - C);
        run_through_segment<Shape, ColumnDecay>(states, buffer, tiles.e, tiles.a, tiles.decay);
      }
      const auto load = [&](int t, Operands& token) {
        Shape::load(tiles.y.at(buffer, t), token.y);
        Shape::load(tiles.e.at(buffer, t), token.e);
        if constexpr (kResidual) Shape::load(tiles.de.at(buffer, t), token.de);
        token.decay.load(tiles.decay.at(buffer, t));
        const float c = *tiles.scale.at(buffer, t);
        Shape::load_own(tiles.q.at(buffer, t), token.q);
#pragma unroll
        for (int r = 0; r < R; ++r) token.q[r] *= c;
        if constexpr (kResidual) Shape::load_own(tiles.r.at(buffer, t), token.r);
      };
      const auto use = [&](int t, const Operands& token) {
        typename Shape::Own da, ddecay;
#pragma unroll
        for (int r = 0; r < R; ++r) {
#pragma unroll
          for (int e = 0; e < E; ++e) ds[r][e] = fmaf(token.y[e], token.q[r], ds[r][e]);
          da[r] = Shape::dot(ds[r], token.e);
          if constexpr (kHistory) ddecay[r] = Shape::dot(ds[r], states[t][r]);
#pragma unroll
          for (int e = 0; e < E; ++e) {
            ds[r][e] = token.decay.times(ds[r][e], r, e);
            if constexpr (kResidual) ds[r][e] = fmaf(-token.de[e], token.r[r], ds[r][e]);
          }
        }
        Shape::store_own(tiles.da.at(t), da);
        if constexpr (kHistory) Shape::store_own(tiles.ddecay.at(t), ddecay);
      };
      // Unrolled with a history: its registers have no index.
      constexpr int kAtOnce = kHistory ? C : kUnroll<Shape>;
      walk_tile<Order::against_time, C, kAtOnce, kReadsAhead<D>, Operands>(load, use);
    };
    if constexpr (kHistory) ask_for_checkpoint(pipeline.last());
    pipeline.template run<Order::against_time>(
        walk, pipeline.input(tiles.y, args.d_o), pipeline.input(tiles.e, args.e),
        pipeline.input(tiles.de, args.de), pipeline.input(tiles.q, args.q, first_column),
        pipeline.input(tiles.r, args.r, first_column),
        pipeline.input(tiles.a, args.a, first_column),
        pipeline.input(tiles.decay, args.decay, ColumnDecay::first_channel(first_column)),
        pipeline.input(tiles.scale, args.scale), pipeline.output(tiles.da, args.da, first_column),
        pipeline.output(tiles.ddecay, args.ddecay, first_column));
  }
};

template <int D, Decay kDecay, bool kResidual, bool kHistory>
struct ColumnRule {
  using Shape = std::conditional_t<kHistory, HistoryShape<D>, ColumnShape<D>>;
  using InTime =
      ColumnsInTime<D, Shape, kResidual ? ColumnMatrix::residual : ColumnMatrix::plain, kDecay>;
  using AgainstTime = ColumnsAgainstTime<D, Shape, kDecay, kResidual, kHistory>;
  union Tiles {
    typename InTime::Tiles in_time;
    typename AgainstTime::Tiles against_time;
  };
};

/// Blocks (lane, columns, pass).
enum Pass : unsigned { kStateInTime, kStateAgainstTime, kNormaliserInTime, kNormaliserAgainstTime };

template <int D, Decay kDecay, bool kResidual, bool kHistory>
__global__ void __launch_bounds__(ColumnRule<D, kDecay, kResidual, kHistory>::Shape::kThreads, 1)
    backward_columns_kernel(const ColumnsInTimeArgs in_time, const AgainstTimeArgs against_time,
                            const NormaliserWalks normaliser) {
  using Rule = ColumnRule<D, kDecay, kResidual, kHistory>;
  __shared__ typename Rule::Tiles tiles;
  switch (blockIdx.z) {
    case kStateInTime:
      return Rule::InTime::run(in_time, tiles.in_time);
    case kStateAgainstTime:
      return Rule::AgainstTime::run(against_time, tiles.against_time);
    default: {
      constexpr int kColumns = Rule::Shape::kBlockLines;
      walk_gradients(normaliser, in_time.tokens, in_time.heads, in_time.x.width,
                     static_cast<int>(blockIdx.y) * kColumns, kColumns,
                     blockIdx.z == kNormaliserInTime);
    }
  }
}

}  // namespace

template <int D>
void recurrence_backward_columns(cudaStream_t stream, const RecurrenceInputs& inputs,
                                 const RecurrenceBackward& args) {
  const HeadDims& dims = inputs.dims;
  const auto tokens = static_cast<int>(dims.tokens);
  const auto heads = static_cast<int>(dims.heads);
  const TokenSource scale(dims, inputs.scale);
  const ColumnsInTimeArgs in_time{.tokens = tokens,
                                  .heads = heads,
                                  .x = {dims, args.e},
                                  .y = {dims, inputs.a},
                                  .b = {dims, args.de},
                                  .c = {dims, args.d_o},
                                  .decay = {dims, inputs.decay},
                                  .factor = scale,
                                  .before = {dims, args.dr},
                                  .after = {dims, args.dq},
                                  .penalty = {}};
  const AgainstTimeArgs against_time{.tokens = tokens,
                                     .heads = heads,
                                     .d_o = {dims, args.d_o},
                                     .e = {dims, args.e},
                                     .de = {dims, args.de},
                                     .q = {dims, inputs.q},
                                     .r = {dims, inputs.r},
                                     .a = {dims, inputs.a},
                                     .decay = {dims, inputs.decay},
                                     .scale = scale,
                                     .checkpoints = args.checkpoints,
                                     .da = {dims, args.da},
                                     .ddecay = {dims, args.ddecay}};
  with_rule(inputs, [&](auto decay, auto residual) {
    const auto launch = [&](auto history) {
      using Shape = typename ColumnRule<D, decay, residual, history>::Shape;
      const unsigned passes = args.normaliser.d_denominator != nullptr ? 4 : 2;
      const dim3 grid(static_cast<unsigned>(dims.lanes()), D / Shape::kBlockLines, passes);
      backward_columns_kernel<D, decay, residual, history>
          <<<grid, Shape::kThreads, 0, stream>>>(in_time, against_time, args.normaliser);
    };
    if constexpr (decay == Decay::columns) {
      if (args.ddecay.data != nullptr) return launch(std::true_type());
    }
    launch(std::false_type());
  });
  VLA_CUDA_LAUNCHED("backward_columns_kernel");
}

#define VLA_INSTANTIATE(d)                                                            \
  template void recurrence_backward_columns<d>(cudaStream_t, const RecurrenceInputs&, \
                                               const RecurrenceBackward&);
VLA_FOR_RULE_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
