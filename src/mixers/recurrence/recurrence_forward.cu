// The forward of recurrence_cuda.h; numbers are its steps.
#include "core/cuda/check.h"
#include "core/cuda/warp.h"
#include "mixers/recurrence/lines.cuh"
#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

struct ForwardArgs {
  int tokens, heads;
  TokenSource r, a, q, decay, v, scale;
  TokenTarget o, e;
  float* checkpoints;
  float* denominator;
  float floor;
};

/// A rule of the recurrence in rows; the normaliser is a warp more.
template <int D, Decay kDecay, bool kResidual, bool kNormalises>
struct ForwardRule {
  using Shape = RowShape<D>;
  using RowDecay = LineDecay<D, Shape, kDecay>;
  static constexpr int kThreads = Shape::kThreads + (kNormalises ? kWarp : 0);
  static constexpr int C = Shape::kTokens;
  static constexpr int kRows = Shape::kBlockLines;

  struct Tiles {
    InputTile<C, kResidual ? D : 0> r;
    InputTile<C, D> a, q;
    InputTile<C, kRows> v;
    typename RowDecay::Tile decay;
    InputTile<C, kNormalises ? 0 : 1> scale;
    OutputTile<C, kRows> o, e;
    float factors[kNormalises ? C : 1];  // the normaliser's 1 / c
  };
  /// What a thread reads of a token.
  struct Operands {
    float r[kResidual ? Shape::kChannels : 1];
    typename Shape::Along a, q;
    typename Shape::Own v;
    RowDecay decay;
    float scale;
  };
  /// What the normaliser's warp reads of a token.
  struct SumOperands {
    typename Shape::Along a, q;
  };
};

template <int D, Decay kDecay, bool kResidual, bool kNormalises>
__global__ void __launch_bounds__(ForwardRule<D, kDecay, kResidual, kNormalises>::kThreads, 1)
    recurrence_forward_kernel(const ForwardArgs args) {
  using Rule = ForwardRule<D, kDecay, kResidual, kNormalises>;
  using Shape = typename Rule::Shape;
  using Operands = typename Rule::Operands;
  using SumOperands = typename Rule::SumOperands;
  constexpr int C = Shape::kTokens;
  constexpr int R = Shape::kLines;
  constexpr int E = Shape::kChannels;
  constexpr int kThreads = Shape::kThreads;
  constexpr int kCheckpoint = checkpoint_tokens(D);
  static_assert(C % kCheckpoint == 0);
  __shared__ typename Rule::Tiles tiles;

  const Pipeline<C, kThreads, Rule::kThreads> pipeline(args.tokens, args.heads);
  const int tokens = pipeline.tokens;
  const int first_row = static_cast<int>(blockIdx.y) * Shape::kBlockLines;
  float s[R][E] = {};  // the thread's rows

  const auto save_checkpoint = [&](int t) {
    const Index segments = (tokens + kCheckpoint - 1) / kCheckpoint;
    const Index segment = pipeline.lane * segments + t / kCheckpoint;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int row = first_row + Shape::line(r);
      Shape::store(args.checkpoints + (segment * D + row) * D, s[r]);
    }
  };
  const auto walk_rows = [&](int first, int buffer) {
    const auto load = [&](int t, Operands& token) {
      if constexpr (kResidual) Shape::load(tiles.r.at(buffer, t), token.r);
      Shape::load(tiles.a.at(buffer, t), token.a);
      Shape::load(tiles.q.at(buffer, t), token.q);
      Shape::load_own(tiles.v.at(buffer, t), token.v);
      token.decay.load(tiles.decay.at(buffer, t));
      token.scale = kNormalises ? 1.0F : *tiles.scale.at(buffer, t);
    };
    const auto use = [&](int t, const Operands& token) {
      if constexpr (kDecay != Decay::none) {
        if (t % kCheckpoint == 0 && args.checkpoints != nullptr && first + t < tokens) {
          save_checkpoint(first + t);
        }
      }
      typename Shape::Own residual, read;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        residual[r] = token.v[r];
        if constexpr (kResidual) residual[r] -= Shape::dot(s[r], token.r);  // 1
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < E; ++e) {  // 2
          s[r][e] = fmaf(residual[r], token.a[e], token.decay.times(s[r][e], r, e));
        }
        read[r] = Shape::dot(s[r], token.q) * token.scale;  // 3
      }
      Shape::store_own(tiles.o.at(t), read);
      Shape::store_own(tiles.e.at(t), residual);
    };
    walk_tile<Order::in_time, C, C, true, Operands>(load, use);
  };

  typename Shape::Along z = {};  // the same in every group of the normaliser's warp
  const auto walk_normaliser = [&](int first, int buffer) {
    const int own = static_cast<int>(threadIdx.x) - kThreads;  // the token whose c is kept
    float c = 0.0F;
    const auto load = [&](int t, SumOperands& token) {
      Shape::load(tiles.a.at(buffer, t), token.a);
      Shape::load(tiles.q.at(buffer, t), token.q);
    };
    const auto use = [&](int t, const SumOperands& token) {
#pragma unroll
      for (int e = 0; e < E; ++e) z[e] += token.a[e];
      const float along = Shape::dot(z, token.q);
      if (t == own) c = along;
    };
    walk_tile<Order::in_time, C, C, true, SumOperands>(load, use);
    if (own < C) {
      tiles.factors[own] = 1.0F / at_least(c, args.floor);
      if (blockIdx.y == 0 && first + own < tokens) {
        const Index row = static_cast<Index>(pipeline.batch) * tokens + first + own;
        args.denominator[row * args.heads + pipeline.head] = c;
      }
    }
  };
  const auto walk = [&](int first, int buffer) {
    if (kNormalises && threadIdx.x >= kThreads) {  // a whole warp
      walk_normaliser(first, buffer);
    } else {
      walk_rows(first, buffer);
    }
  };
  pipeline.template run<Order::in_time>(
      walk, pipeline.input(tiles.r, args.r), pipeline.input(tiles.a, args.a),
      pipeline.input(tiles.q, args.q), pipeline.input(tiles.v, args.v, first_row),
      pipeline.input(tiles.decay, args.decay, Rule::RowDecay::first_channel(first_row)),
      pipeline.input(tiles.scale, args.scale),
      pipeline.output(tiles.o, args.o, first_row, kNormalises ? tiles.factors : nullptr),
      pipeline.output(tiles.e, args.e, first_row));
}

}  // namespace

template <int D>
void recurrence_forward(cudaStream_t stream, const RecurrenceInputs& inputs,
                        const RecurrenceForward& args) {
  const HeadDims& dims = inputs.dims;
  const ForwardArgs kernel_args{.tokens = static_cast<int>(dims.tokens),
                                .heads = static_cast<int>(dims.heads),
                                .r = {dims, inputs.r},
                                .a = {dims, inputs.a},
                                .q = {dims, inputs.q},
                                .decay = {dims, inputs.decay},
                                .v = {dims, args.v},
                                .scale = {dims, inputs.scale},
                                .o = {dims, args.o},
                                .e = {dims, args.e},
                                .checkpoints = args.checkpoints,
                                .denominator = args.denominator,
                                .floor = args.floor};
  with_rule(inputs, [&](auto decay, auto residual) {
    const auto launch = [&](auto normalises) {
      using Rule = ForwardRule<D, decay, residual, normalises>;
      const dim3 grid(static_cast<unsigned>(dims.lanes()), D / Rule::kRows);
      recurrence_forward_kernel<D, decay, residual, normalises>
          <<<grid, Rule::kThreads, 0, stream>>>(kernel_args);
    };
    if constexpr (decay == Decay::none && !residual) {
      if (args.denominator != nullptr) return launch(std::true_type());
    }
    launch(std::false_type());
  });
  VLA_CUDA_LAUNCHED("recurrence_forward_kernel");
}

#define VLA_INSTANTIATE(d)                                                   \
  template void recurrence_forward<d>(cudaStream_t, const RecurrenceInputs&, \
                                      const RecurrenceForward&);
VLA_FOR_RULE_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
