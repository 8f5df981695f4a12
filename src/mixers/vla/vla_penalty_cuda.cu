#include "core/cuda/check.h"
#include "core/cuda/warp.h"
#include "mixers/features.h"
#include "mixers/recurrence/columns_in_time.cuh"
#include "mixers/recurrence/cuda_token.cuh"
#include "mixers/recurrence/normaliser.cuh"
#include "mixers/vla/vla_penalty_cuda.h"
#include "ops/cuda/approximate.cuh"

namespace vla_bench::mixers::cuda {
namespace {

using ops::cuda::inverse_root;

constexpr float kFloor = static_cast<float>(kUnitFloor);

/// A lane's matrix is held by one block, a row by two threads: one shuffle then sums up a vector of
/// d channels. From d = 64 on by four, where a thread's own work would take longer than the
/// shuffles. As many tokens a tile as shared memory allows; even, since two buffers of the exchange
/// alternate.
template <int D, int kTokens>
using PenaltyShape = LineShape<D, D <= 32 ? 2 : 4, 1, D*(D <= 32 ? 2 : 4), kTokens>;
template <int D>
using PenaltyForwardShape = PenaltyShape<D, D == 128 ? 8 : 16>;
template <int D>
using PenaltyBackwardShape = PenaltyShape<D, D == 128 ? 4 : 8>;

struct PenaltyForwardArgs {
  int tokens, heads;
  PenaltySettings settings;
  TokenSource u, k;
  TokenView<float> a;
  TokenTarget w, delta;
  float* b_norm;
  NormaliserForward normaliser;
};

template <int D>
struct PenaltyForwardTiles {
  static constexpr int C = PenaltyForwardShape<D>::kTokens;
  InputTile<C, D> u, k;
  // w of this token and of the one before, which slow threads may still be reading.
  alignas(16) float exchange[2][D];
  OutputTile<C, D> b, w;
  OutputTile<C, 1> delta;
};

template <int D>
__device__ inline void penalty_forward(const PenaltyForwardArgs& args,
                                       PenaltyForwardTiles<D>& tiles) {
  using Shape = PenaltyForwardShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int E = Shape::kChannels;
  constexpr int kThreads = Shape::kThreads;
  // u and k of the next token are loaded before the barrier that would delay them; at d = 128 there
  // are no registers for that.
  constexpr bool kAhead = D <= 64;
  const Pipeline<C, kThreads> pipeline(args.tokens, args.heads);
  const int row = Shape::line(0);
  const bool writes_row = Shape::member() == 0;
  const PenaltySettings& settings = args.settings;

  float matrix[E];  // A's row
#pragma unroll
  for (int e = 0; e < E; ++e) {
    matrix[e] = Shape::channel(e) == row ? settings.inverse_lambda : 0.0F;
  }
  NudgeCounter nudges(settings.period, settings.nudged_tokens);
  const auto walk = [&](int, int buffer) {
    float u[E], k[E];
    const auto load = [&](int t, float(&to_u)[E], float(&to_k)[E]) {
      Shape::load(tiles.u.at(buffer, t), to_u);
      Shape::load(tiles.k.at(buffer, t), to_k);
    };
    if constexpr (kAhead) load(0, u, k);
#pragma unroll 2
    for (int t = 0; t < C; ++t) {
      if constexpr (!kAhead) load(t, u, k);
      const float own_w = Shape::dot(matrix, u);
      const float own_y = Shape::dot(matrix, k);
      float* exchange = tiles.exchange[t % 2];
      if (writes_row) exchange[row] = own_w;
      float next_u[E], next_k[E];
      if constexpr (kAhead) load(t + 1 < C ? t + 1 : t, next_u, next_k);
      __syncthreads();
      if constexpr (!kAhead) load(t, u, k);
      float w[E];
      Shape::load(exchange, w);
      const float delta = 1.0F + Shape::dot(u, w);
      const float along_k = Shape::dot(k, w);
      const float scale = inverse_root(at_least(delta, settings.stab_eps));
      const float scaled_w = own_w * scale;
#pragma unroll
      for (int e = 0; e < E; ++e) matrix[e] = fmaf(-scaled_w, w[e] * scale, matrix[e]);
      float b = fmaf(-scaled_w, along_k * scale, own_y);
      if (nudges.next()) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          if (Shape::channel(e) == row) matrix[e] += settings.per_eps;
        }
        b = fmaf(settings.per_eps, tiles.k.at(buffer, t)[row], b);
      }
      if (writes_row) tiles.b.at(t)[row] = b;
      if (writes_row) tiles.w.at(t)[row] = scaled_w;
      if (threadIdx.x == 0) *tiles.delta.at(t) = delta;
      if constexpr (kAhead) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          u[e] = next_u[e];
          k[e] = next_k[e];
        }
      }
    }
  };
  const auto write_direction = [&](int first) {  // a warp a token
    float* a_lane = args.a.lane(pipeline.batch, pipeline.head);
    const int count = min(C, pipeline.tokens - first);
    for (int t = threadIdx.x / kWarp; t < count; t += kThreads / kWarp) {
      const Index at = static_cast<Index>(first + t);
      const float* b = tiles.b.at(t);
      float squares = 0.0F;
      for (int i = threadIdx.x % kWarp; i < D; i += kWarp) squares = fmaf(b[i], b[i], squares);
      const float norm = sqrtf(group_sum<kWarp>(squares));
      const float scale = settings.unit_write ? 1.0F / at_least(norm, kFloor) : 1.0F;
      float* a = a_lane + at * args.a.token;
      for (int i = threadIdx.x % kWarp; i < args.u.width; i += kWarp) a[i] = b[i] * scale;
      if (args.b_norm != nullptr && threadIdx.x % kWarp == 0) {
        const Index token = static_cast<Index>(pipeline.batch) * pipeline.tokens + at;
        args.b_norm[token * args.heads + pipeline.head] = norm;
      }
    }
  };
  pipeline.template run<Order::in_time>(
      walk, pipeline.input(tiles.u, args.u), pipeline.input(tiles.k, args.k),
      pipeline.output(tiles.w, args.w), pipeline.output(tiles.delta, args.delta),
      OwnOutput{write_direction});
}

/// Blocks (lane, path): the penalty, and beside it the normaliser.
template <int D>
__global__ void __launch_bounds__(PenaltyForwardShape<D>::kThreads, 1)
    penalty_forward_kernel(const PenaltyForwardArgs args) {
  __shared__ union {
    PenaltyForwardTiles<D> penalty;
    DenominatorProducts<D> normaliser;
  } tiles;
  if (blockIdx.y == 0) {
    penalty_forward<D>(args, tiles.penalty);
  } else {
    walk_denominators<D>(args.normaliser, static_cast<int>(blockIdx.x), tiles.normaliser);
  }
}

struct PenaltyBackwardArgs {
  int tokens, heads;
  PenaltySettings settings;
  TokenSource u, k, a, w, da, da_more, b_norm, delta;
  TokenView<float> db;
  TokenTarget dw, w_share;
};

template <int D>
struct PenaltyBackwardTiles {
  static constexpr int C = PenaltyBackwardShape<D>::kTokens;
  InputTile<C, D> u, k, a, w;
  InputTile<C, D> db;  // da, then db in its place
  InputTile<C, D> more;
  InputTile<C, 1> norm, delta;
  // Per token of the tile, found before the chain begins: -2 / sqrt(delta); 1 / delta or, where
  // delta is at its floor, 0; sqrt(delta).
  float factor[C];
  float inverse[C];
  float root[C];
  alignas(16) float exchange[2][D];  // G w^, as the forward's
  OutputTile<C, D> dw;
  OutputTile<C, 1> w_share;
};

template <int D>
__global__ void __launch_bounds__(PenaltyBackwardShape<D>::kThreads, 1)
    penalty_backward_kernel(const PenaltyBackwardArgs args) {
  using Shape = PenaltyBackwardShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int E = Shape::kChannels;
  constexpr int kThreads = Shape::kThreads;
  __shared__ PenaltyBackwardTiles<D> tiles;

  const Pipeline<C, kThreads> pipeline(args.tokens, args.heads);
  const int row = Shape::line(0);
  const bool writes_row = Shape::member() == 0;
  const PenaltySettings& settings = args.settings;
  const bool has_more = args.da_more.view.data != nullptr;

  // (4) db of the tile, a warp a token. Beyond the last token everything is 0 but the floors, which
  // keep it so.
  const auto find_db = [&](int first, int buffer) {
    float* db_lane = args.db.lane(pipeline.batch, pipeline.head);
    for (int t = threadIdx.x / kWarp; t < C; t += kThreads / kWarp) {
      float* db = tiles.db.buffers[buffer] + t * D;
      const float* a = tiles.a.at(buffer, t);
      const float norm = *tiles.norm.at(buffer, t);
      float along = 0.0F;
      for (int i = threadIdx.x % kWarp; i < D; i += kWarp) {
        if (has_more) db[i] += tiles.more.at(buffer, t)[i];
        along = fmaf(a[i], db[i], along);
      }
      along = group_sum<kWarp>(along);
      float scale = 1.0F;
      if (settings.unit_write) scale = 1.0F / at_least(norm, kFloor);
      if (!settings.unit_write || norm < kFloor) along = 0.0F;
      float* out = db_lane + static_cast<Index>(first + t) * args.db.token;
      for (int i = threadIdx.x % kWarp; i < D; i += kWarp) {
        const float value = fmaf(-a[i], along, db[i]) * scale;
        db[i] = value;
        if (first + t < pipeline.tokens && i < args.u.width) out[i] = value;
      }
      if (threadIdx.x % kWarp == 0) {
        const float raw = *tiles.delta.at(buffer, t);
        const float delta = at_least(raw, settings.stab_eps);
        tiles.factor[t] = -2.0F * inverse_root(delta);
        tiles.inverse[t] = raw < settings.stab_eps ? 0.0F : 1.0F / delta;
        tiles.root[t] = sqrtf(delta);
      }
    }
  };
  float gradient[E] = {};  // G's row
  const auto walk = [&](int first, int buffer) {
    find_db(first, buffer);
    __syncthreads();
#pragma unroll 2
    for (int back = 0; back < C; ++back) {
      const int t = C - 1 - back;
      const float* db_row = tiles.db.at(buffer, t);
      float db[E], k[E], u[E], w[E];
      Shape::load(db_row, db);
      Shape::load(tiles.k.at(buffer, t), k);
      Shape::load(tiles.w.at(buffer, t), w);
      const float half_db = 0.5F * db_row[row];
      const float half_k = 0.5F * tiles.k.at(buffer, t)[row];
#pragma unroll
      for (int e = 0; e < E; ++e) {  // G += sym(db k^T)
        gradient[e] = fmaf(half_db, k[e], fmaf(half_k, db[e], gradient[e]));
      }
      const float own = Shape::dot(gradient, w);
      float* shared = tiles.exchange[back % 2];
      if (writes_row) shared[row] = own;
      // Loaded before the barrier that would delay them.
      Shape::load(tiles.u.at(buffer, t), u);
      const float own_u = tiles.u.at(buffer, t)[row];
      const float factor = tiles.factor[t];
      const float inverse = tiles.inverse[t];
      __syncthreads();
      float gw[E];  // G w^
      Shape::load(shared, gw);
      const float d_delta = inverse * Shape::dot(w, gw);  // w^T G w / delta^2
      const float dw = fmaf(factor, own, d_delta * own_u);
      const float half_dw = 0.5F * dw;
      const float half_u = 0.5F * own_u;
#pragma unroll
      for (int e = 0; e < E; ++e) {  // G += sym(dw u^T)
        const float other_dw = fmaf(factor, gw[e], d_delta * u[e]);
        gradient[e] = fmaf(half_dw, u[e], fmaf(half_u, other_dw, gradient[e]));
      }
      if (writes_row) tiles.dw.at(t)[row] = dw;
      if (threadIdx.x == 0) *tiles.w_share.at(t) = d_delta * tiles.root[t];
    }
  };
  pipeline.template run<Order::against_time>(
      walk, pipeline.input(tiles.u, args.u), pipeline.input(tiles.k, args.k),
      pipeline.input(tiles.a, args.a), pipeline.input(tiles.w, args.w),
      pipeline.input(tiles.db, args.da), pipeline.optional_input(tiles.more, args.da_more),
      pipeline.input(tiles.norm, args.b_norm), pipeline.input(tiles.delta, args.delta),
      pipeline.output(tiles.dw, args.dw), pipeline.output(tiles.w_share, args.w_share));
}

constexpr int kElementThreads = 128;

/// The element of a view (B, T, H, d) that a thread of element_grid has.
struct ViewElement {
  Index batch, token, head, channel;
  bool exists;

  __device__ explicit ViewElement(const HeadDims& dims) {
    const Index width = dims.heads * dims.d_h;
    const Index at = static_cast<Index>(blockIdx.x) * kElementThreads + threadIdx.x;
    batch = blockIdx.y;
    token = at / width;
    head = at % width / dims.d_h;
    channel = at % dims.d_h;
    exists = token < dims.tokens;
  }
  template <class T>
  __device__ T& of(const TokenView<T>& view) const {
    return view.data[batch * view.batch + token * view.token + head * view.head + channel];
  }
};
dim3 element_grid(const HeadDims& dims) {
  const Index elements = dims.tokens * dims.heads * dims.d_h;
  return {static_cast<unsigned>((elements + kElementThreads - 1) / kElementThreads),
          static_cast<unsigned>(dims.batch)};
}

__global__ void __launch_bounds__(kElementThreads)
    write_gains_kernel(const HeadDims dims, const TokenView<const float> w, const float* delta,
                       const TokenView<float> a) {
  const ViewElement element(dims);
  if (!element.exists) return;
  const Index row = element.batch * dims.tokens + element.token;
  element.of(a) = element.of(w) / sqrtf(delta[row * dims.heads + element.head]);
}

__global__ void __launch_bounds__(kElementThreads)
    add_multiple_kernel(const HeadDims dims, const float factor, const TokenView<const float> x,
                        const TokenView<float> y) {
  const ViewElement element(dims);
  if (element.exists) element.of(y) = fmaf(factor, element.of(x), element.of(y));
}

/// (4) against time: db from da, and from `more` unless that is empty.
template <int D>
__global__ void __launch_bounds__(kTokenThreads)
    direction_gradients_kernel(const PenaltyBackward args) {
  const TokenLanes<D> at(args.dims);
  auto db = at.load(args.da);
  if (args.da_more.data != nullptr) {
    const auto more = at.load(args.da_more);
    at.each([&](int i) { db[i] += more[i]; });
  }
  const auto a = at.load(args.a);
  const float norm = args.b_norm[at.scalar()];
  float along = at.dot(a, db), scale = 1.0F;
  if (args.settings.unit_write) scale = 1.0F / at_least(norm, kFloor);
  if (!args.settings.unit_write || norm < kFloor) along = 0.0F;
  at.each([&](int i) { db[i] = fmaf(-a[i], along, db[i]) * scale; });
  at.store(db, args.db);
}

template <int D>
using PenaltyReadsPass = ColumnsInTime<D, ColumnShape<D>, ColumnMatrix::penalty, Decay::none>;

template <int D>
__global__ void __launch_bounds__(ColumnShape<D>::kThreads, 1)
    penalty_reads_kernel(const ColumnsInTimeArgs args) {
  __shared__ typename PenaltyReadsPass<D>::Tiles tiles;
  PenaltyReadsPass<D>::run(args, tiles);
}

}  // namespace

void hold_directions(cudaStream_t stream, const HeadDims& dims, Index hold_after, float* u) {
  if (hold_after == 0 || hold_after >= dims.tokens) return;
  const auto bytes = [&](Index tokens) {
    return static_cast<std::size_t>(tokens * dims.heads * dims.d_h) * sizeof(float);
  };
  VLA_CUDA(cudaMemset2DAsync(u + hold_after * dims.heads * dims.d_h, bytes(dims.tokens), 0,
                             bytes(dims.tokens - hold_after), static_cast<std::size_t>(dims.batch),
                             stream));
}

void write_gains(cudaStream_t stream, const HeadDims& dims, const TokenView<const float>& w,
                 const float* delta, const TokenView<float>& a) {
  write_gains_kernel<<<element_grid(dims), kElementThreads, 0, stream>>>(dims, w, delta, a);
  VLA_CUDA_LAUNCHED("write_gains_kernel");
}
void direction_gradients(cudaStream_t stream, const PenaltyBackward& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    direction_gradients_kernel<d><<<token_blocks<d>(args.dims), kTokenThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("direction_gradients_kernel");
}
void add_multiple(cudaStream_t stream, const HeadDims& dims, float factor,
                  const TokenView<const float>& x, const TokenView<float>& y) {
  add_multiple_kernel<<<element_grid(dims), kElementThreads, 0, stream>>>(dims, factor, x, y);
  VLA_CUDA_LAUNCHED("add_multiple_kernel");
}

void penalty_forward(cudaStream_t stream, const PenaltyForward& args) {
  const PenaltyForwardArgs kernel_args{.tokens = static_cast<int>(args.dims.tokens),
                                       .heads = static_cast<int>(args.dims.heads),
                                       .settings = args.settings,
                                       .u = {args.dims, args.u},
                                       .k = {args.dims, args.k},
                                       .a = args.a,
                                       .w = {args.dims, args.w},
                                       .delta = {args.dims, args.delta},
                                       .b_norm = args.b_norm,
                                       .normaliser = args.normaliser};
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    const unsigned paths = args.normaliser.denominator != nullptr ? 2 : 1;
    const dim3 grid(static_cast<unsigned>(args.dims.lanes()), paths);
    penalty_forward_kernel<D><<<grid, PenaltyForwardShape<D>::kThreads, 0, stream>>>(kernel_args);
  });
  VLA_CUDA_LAUNCHED("penalty_forward_kernel");
}

void penalty_backward(cudaStream_t stream, const PenaltyBackward& args) {
  const PenaltyBackwardArgs kernel_args{.tokens = static_cast<int>(args.dims.tokens),
                                        .heads = static_cast<int>(args.dims.heads),
                                        .settings = args.settings,
                                        .u = {args.dims, args.u},
                                        .k = {args.dims, args.k},
                                        .a = {args.dims, args.a},
                                        .w = {args.dims, args.w},
                                        .da = {args.dims, args.da},
                                        .da_more = {args.dims, args.da_more},
                                        .b_norm = {args.dims, args.b_norm},
                                        .delta = {args.dims, args.delta},
                                        .db = args.db,
                                        .dw = {args.dims, args.dw},
                                        .w_share = {args.dims, args.w_share}};
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    penalty_backward_kernel<D><<<static_cast<unsigned>(args.dims.lanes()),
                                 PenaltyBackwardShape<D>::kThreads, 0, stream>>>(kernel_args);
  });
  VLA_CUDA_LAUNCHED("penalty_backward_kernel");
}

void penalty_reads(cudaStream_t stream, const PenaltyReads& args) {
  const ColumnsInTimeArgs kernel_args{.tokens = static_cast<int>(args.dims.tokens),
                                      .heads = static_cast<int>(args.dims.heads),
                                      .x = {args.dims, args.w},
                                      .y = {args.dims, args.w},
                                      .b = {args.dims, args.dw},
                                      .c = {args.dims, args.db},
                                      .decay = {},
                                      .factor = {},
                                      .shift = {args.dims, args.w_share},
                                      .before = {args.dims, args.du},
                                      .after = {args.dims, args.dk},
                                      .penalty = {.initial = args.settings.inverse_lambda,
                                                  .nudge = args.settings.per_eps,
                                                  .period = args.settings.period,
                                                  .nudged_tokens = args.settings.nudged_tokens}};
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    using Shape = ColumnShape<D>;
    const dim3 grid(static_cast<unsigned>(args.dims.lanes()), D / Shape::kBlockLines);
    penalty_reads_kernel<D><<<grid, Shape::kThreads, 0, stream>>>(kernel_args);
  });
  VLA_CUDA_LAUNCHED("penalty_reads_kernel");
}

}  // namespace vla_bench::mixers::cuda
