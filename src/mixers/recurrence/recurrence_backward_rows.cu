// The chain of de of recurrence_cuda.h, against time; numbers are its steps.
#include "core/cuda/check.h"
#include "core/cuda/warp.h"
#include "mixers/recurrence/lines.cuh"
#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

struct BackwardArgs {
  int tokens, heads;
  TokenSource r, a, q, decay, d_o, e, scale;
  const float* checkpoints;
  TokenTarget de, row_sums;
};

/// kHistory: with the sums over rows of dS_ij (S_{t-1})_ij.
template <int D, Decay kDecay, bool kResidual, bool kHistory>
struct BackwardRule {
  using Shape = std::conditional_t<kHistory, HistoryShape<D>, RowShape<D>>;
  using RowDecay = LineDecay<D, Shape, kDecay>;
  static constexpr int C = Shape::kTokens;
  static constexpr int kRows = Shape::kBlockLines;

  struct Tiles {
    InputTile<C, kResidual ? D : 0> r;
    InputTile<C, D> a, q;
    InputTile<C, kRows> y;
    InputTile<C, kHistory ? kRows : 0> e;
    typename RowDecay::Tile decay;
    InputTile<C, 1> scale;
    OutputTile<C, kRows> de;
    OutputTile<C, kHistory ? kRows : 0> row_sums;
  };
  /// What a thread reads of a token.
  struct Operands {
    float r[kResidual ? Shape::kChannels : 1];
    typename Shape::Along a, q;
    typename Shape::Own dn;
    RowDecay decay;
  };
};

template <int D, Decay kDecay, bool kResidual, bool kHistory>
__global__ void __launch_bounds__(BackwardRule<D, kDecay, kResidual, kHistory>::Shape::kThreads, 1)
    backward_rows_kernel(const BackwardArgs args) {
  using Rule = BackwardRule<D, kDecay, kResidual, kHistory>;
  using Shape = typename Rule::Shape;
  using Operands = typename Rule::Operands;
  constexpr int C = Shape::kTokens;
  constexpr int R = Shape::kLines;
  constexpr int E = Shape::kChannels;
  __shared__ typename Rule::Tiles tiles;

  const Pipeline<C, Shape::kThreads> pipeline(args.tokens, args.heads);
  const int first_row = static_cast<int>(blockIdx.y) * Shape::kBlockLines;
  float ds[R][E] = {};
  float ahead[R][E];  // the checkpoint of the next segment visited, asked for one segment early
  const auto ask_for_checkpoint = [&](int first) {
    const Index segments = (pipeline.tokens + C - 1) / C;
    const Index segment = pipeline.lane * segments + first / C;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int row = first_row + Shape::line(r);
      Shape::load(args.checkpoints + (segment * D + row) * D, ahead[r]);
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
      run_through_segment<Shape, typename Rule::RowDecay>(states, buffer, tiles.a, tiles.e,
                                                          tiles.decay);
    }
    const auto load = [&](int t, Operands& token) {
      if constexpr (kResidual) Shape::load(tiles.r.at(buffer, t), token.r);
      Shape::load(tiles.a.at(buffer, t), token.a);
      Shape::load(tiles.q.at(buffer, t), token.q);
      const float c = *tiles.scale.at(buffer, t);
      Shape::load_own(tiles.y.at(buffer, t), token.dn);
#pragma unroll
      for (int r = 0; r < R; ++r) token.dn[r] *= c;
      token.decay.load(tiles.decay.at(buffer, t));
    };
    const auto use = [&](int t, const Operands& token) {
      typename Shape::Own de, row_sums;
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < E; ++e) ds[r][e] = fmaf(token.dn[r], token.q[e], ds[r][e]);  // 3
        de[r] = Shape::dot(ds[r], token.a);                                              // 2
        if constexpr (kHistory) row_sums[r] = Shape::dot(ds[r], states[t][r]);
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          ds[r][e] = token.decay.times(ds[r][e], r, e);                            // 2
          if constexpr (kResidual) ds[r][e] = fmaf(-de[r], token.r[e], ds[r][e]);  // 1
        }
      }
      Shape::store_own(tiles.de.at(t), de);
      if constexpr (kHistory) Shape::store_own(tiles.row_sums.at(t), row_sums);
    };
    walk_tile<Order::against_time, C, C, true, Operands>(load, use);
  };
  if constexpr (kHistory) ask_for_checkpoint(pipeline.last());
  pipeline.template run<Order::against_time>(
      walk, pipeline.input(tiles.r, args.r), pipeline.input(tiles.a, args.a),
      pipeline.input(tiles.q, args.q), pipeline.input(tiles.y, args.d_o, first_row),
      pipeline.input(tiles.e, args.e, first_row),
      pipeline.input(tiles.decay, args.decay, Rule::RowDecay::first_channel(first_row)),
      pipeline.input(tiles.scale, args.scale), pipeline.output(tiles.de, args.de, first_row),
      pipeline.output(tiles.row_sums, args.row_sums, first_row));
}

/// A warp a token and head: the sum over its rows.
__global__ void sum_over_rows_kernel(const HeadDims dims, const TokenView<const float> rows,
                                     const TokenView<float> sums) {
  const Index scalar = static_cast<Index>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (scalar >= dims.batch * dims.tokens * dims.heads) return;
  const auto head = static_cast<int>(scalar % dims.heads);
  const Index token = scalar / dims.heads % dims.tokens;
  const auto batch = static_cast<int>(scalar / dims.heads / dims.tokens);
  const float* from = rows.lane(batch, head) + token * rows.token;
  float sum = 0.0F;
  for (Index i = threadIdx.x % kWarp; i < dims.d_h; i += kWarp) sum += from[i];
  sum = group_sum<kWarp>(sum);
  if (threadIdx.x % kWarp == 0) sums.lane(batch, head)[token * sums.token] = sum;
}

}  // namespace

template <int D>
void recurrence_backward_rows(cudaStream_t stream, const RecurrenceInputs& inputs,
                              const RecurrenceBackward& args) {
  const HeadDims& dims = inputs.dims;
  const bool of_head = inputs.decay_kind == Decay::head;
  const bool has_row_sums =
      args.ddecay.data != nullptr && (of_head || inputs.decay_kind == Decay::rows);
  const BackwardArgs kernel_args{.tokens = static_cast<int>(dims.tokens),
                                 .heads = static_cast<int>(dims.heads),
                                 .r = {dims, inputs.r},
                                 .a = {dims, inputs.a},
                                 .q = {dims, inputs.q},
                                 .decay = {dims, inputs.decay},
                                 .d_o = {dims, args.d_o},
                                 .e = {dims, args.e},
                                 .scale = {dims, inputs.scale},
                                 .checkpoints = args.checkpoints,
                                 .de = {dims, args.de},
                                 .row_sums = {dims, of_head ? args.dq : args.ddecay}};
  with_rule(inputs, [&](auto decay, auto residual) {
    const auto launch = [&](auto history) {
      using Rule = BackwardRule<D, decay, residual, history>;
      const dim3 grid(static_cast<unsigned>(dims.lanes()), D / Rule::kRows);
      backward_rows_kernel<D, decay, residual, history>
          <<<grid, Rule::Shape::kThreads, 0, stream>>>(kernel_args);
    };
    if constexpr (decay == Decay::head || decay == Decay::rows) {
      if (has_row_sums) return launch(std::true_type());
    }
    launch(std::false_type());
  });
  VLA_CUDA_LAUNCHED("backward_rows_kernel");
  if (!of_head || !has_row_sums) return;
  constexpr unsigned kThreads = 128;
  const Index scalars = dims.rows() * dims.heads;
  const auto blocks = static_cast<unsigned>((scalars * kWarp + kThreads - 1) / kThreads);
  sum_over_rows_kernel<<<blocks, kThreads, 0, stream>>>(dims, args.dq, args.ddecay);
  VLA_CUDA_LAUNCHED("sum_over_rows_kernel");
}

#define VLA_INSTANTIATE(d)                                                         \
  template void recurrence_backward_rows<d>(cudaStream_t, const RecurrenceInputs&, \
                                            const RecurrenceBackward&);
VLA_FOR_RULE_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
