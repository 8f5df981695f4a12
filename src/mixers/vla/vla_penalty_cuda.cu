#include "core/cuda/check.h"
#include "mixers/cuda/column_scan.cuh"
#include "mixers/cuda/head_size.h"
#include "mixers/cuda/normaliser.cuh"
#include "mixers/cuda/token_tiles.cuh"
#include "mixers/feature_floor.h"
#include "mixers/vla/vla_penalty_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

constexpr int kWarp = 32;
constexpr float kFloor = static_cast<float>(kUnitFloor);

/// A lane's matrix lies on one block, a row on kGroup threads: with two, a vector of d channels is
/// summed up in one shuffle; from d = 64 on four, since the work of a thread would then outlast it.
template <int D>
struct PenaltyShape {
  static constexpr int kGroup = D <= 32 ? 2 : 4;
  static constexpr int kThreads = D * kGroup;
  static constexpr int kChannels = D / kGroup;
  // Tokens of a tile, as shared memory allows; even, for the exchange goes back and forth.
  static constexpr int kForwardTokens = D == 128 ? 8 : 16;
  static constexpr int kBackwardTokens = D == 128 ? 4 : 8;
};

struct ForwardArgs {
  int tokens, heads, width;
  PenaltySettings settings;
  TokenSource u, k;
  TokenView<float> a, w;
  float* b_norm;
  float* delta;
  NormaliserForward normaliser;
};

template <int D>
struct ForwardTiles {
  static constexpr int kTokens = PenaltyShape<D>::kForwardTokens;
  alignas(16) float u[2][kTokens * D];
  alignas(16) float k[2][kTokens * D];
  // w of the token at hand and of the one before: who is slow may still read the one before.
  alignas(16) float exchange[2][D];
  // Of a tile, written out together.
  float b[kTokens][D];
  float w[kTokens][D];
  float delta[kTokens];
};

template <int D>
__device__ inline void penalty_forward(const ForwardArgs& args, ForwardTiles<D>& tiles) {
  using Shape = PenaltyShape<D>;
  constexpr int C = Shape::kForwardTokens;
  constexpr int G = Shape::kGroup;
  constexpr int E = Shape::kChannels;
  constexpr int kThreads = Shape::kThreads;
  // u and k of the next token are asked for before the barrier they would wait at; at d = 128 no
  // registers are left for that.
  constexpr bool kAhead = D <= 64;
  const int batch = static_cast<int>(blockIdx.x) / args.heads;
  const int head = static_cast<int>(blockIdx.x) % args.heads;
  const int g = threadIdx.x % G;
  const int row = threadIdx.x / G;
  const int tokens = args.tokens;
  const PenaltySettings& settings = args.settings;
  const TileCopier<D, C, kThreads> u_rows(args.u.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> k_rows(args.k.lane(batch, head), tokens);
  const auto copy = [&](int buffer, int first) {
    u_rows.copy(tiles.u[buffer], first);
    k_rows.copy(tiles.k[buffer], first);
  };

  float matrix[E];  // A, row `row`, channels channel_of(g, .)
#pragma unroll
  for (int e = 0; e < E; ++e) {
    matrix[e] = channel_of<G>(g, e) == row ? settings.inverse_lambda : 0.0F;
  }
  NudgeCounter nudges(settings.period);
  copy(0, 0);
  close_group();
  for (int first = 0, buffer = 0; first < tokens; first += C, buffer ^= 1) {
    if (first + C < tokens) copy(buffer ^ 1, first + C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
    float u[E], k[E];
    if constexpr (kAhead) {
      load_spread<D, G>(tiles.u[buffer], g, u);
      load_spread<D, G>(tiles.k[buffer], g, k);
    }
#pragma unroll 2
    for (int t = 0; t < C; ++t) {
      if constexpr (!kAhead) {
        load_spread<D, G>(tiles.u[buffer] + t * D, g, u);
        load_spread<D, G>(tiles.k[buffer] + t * D, g, k);
      }
      const float own_w = group_sum<G>(partial_dot<E>(matrix, u));
      const float own_y = group_sum<G>(partial_dot<E>(matrix, k));
      float* exchange = tiles.exchange[t % 2];
      if (g == 0) exchange[row] = own_w;
      float next_u[E], next_k[E];
      if constexpr (kAhead) {
        const int next = t + 1 < C ? t + 1 : t;
        load_spread<D, G>(tiles.u[buffer] + next * D, g, next_u);
        load_spread<D, G>(tiles.k[buffer] + next * D, g, next_k);
      }
      __syncthreads();
      if constexpr (!kAhead) {
        load_spread<D, G>(tiles.u[buffer] + t * D, g, u);
        load_spread<D, G>(tiles.k[buffer] + t * D, g, k);
      }
      float w[E];
      load_spread<D, G>(exchange, g, w);
      const float delta = 1.0F + group_sum<G>(partial_dot<E>(u, w));
      const float along_k = group_sum<G>(partial_dot<E>(k, w));
      const float scale = inverse_root(at_least(delta, settings.stab_eps));
      const float scaled_w = own_w * scale;
#pragma unroll
      for (int e = 0; e < E; ++e) matrix[e] = fmaf(-scaled_w, w[e] * scale, matrix[e]);
      float b = fmaf(-scaled_w, along_k * scale, own_y);
      if (nudges.next()) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          if (channel_of<G>(g, e) == row) matrix[e] += settings.per_eps;
        }
        b = fmaf(settings.per_eps, tiles.k[buffer][t * D + row], b);
      }
      if (g == 0) tiles.b[t][row] = b;
      if (g == 0) tiles.w[t][row] = scaled_w;
      if (threadIdx.x == 0) tiles.delta[t] = delta;
      if constexpr (kAhead) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          u[e] = next_u[e];
          k[e] = next_k[e];
        }
      }
    }
    __syncthreads();
    for (int t = threadIdx.x / kWarp; t < min(C, tokens - first); t += kThreads / kWarp) {
      const Index at = static_cast<Index>(first + t);
      float squares = 0.0F;
      for (int i = threadIdx.x % kWarp; i < D; i += kWarp) {
        squares = fmaf(tiles.b[t][i], tiles.b[t][i], squares);
      }
      const float norm = sqrtf(group_sum<kWarp>(squares));
      const float scale = settings.unit_write ? 1.0F / at_least(norm, kFloor) : 1.0F;
      float* a = args.a.data + batch * args.a.batch + at * args.a.token + head * args.a.head;
      for (int i = threadIdx.x % kWarp; i < args.width; i += kWarp) a[i] = tiles.b[t][i] * scale;
      if (args.w.data != nullptr) {
        float* w = args.w.data + batch * args.w.batch + at * args.w.token + head * args.w.head;
        for (int i = threadIdx.x % kWarp; i < args.width; i += kWarp) w[i] = tiles.w[t][i];
        if (threadIdx.x % kWarp == 0) {
          const Index scalar = (static_cast<Index>(batch) * tokens + at) * args.heads + head;
          args.b_norm[scalar] = norm;
          args.delta[scalar] = tiles.delta[t];
        }
      }
    }
  }
}

/// Blocks (lane, path): the penalty, and beside it the normaliser.
template <int D>
__global__ void __launch_bounds__(PenaltyShape<D>::kThreads, 1)
    penalty_forward_kernel(const ForwardArgs args) {
  __shared__ union {
    ForwardTiles<D> penalty;
    DenominatorProducts<D> normaliser;
  } tiles;
  if (blockIdx.y == 0) {
    penalty_forward<D>(args, tiles.penalty);
  } else {
    walk_denominators<D>(args.normaliser, static_cast<int>(blockIdx.x), tiles.normaliser);
  }
}

struct BackwardArgs {
  int tokens, heads, width;
  PenaltySettings settings;
  TokenSource u, k, a, w, da, da_more;
  const float* b_norm;
  const float* delta;
  TokenView<float> db, dw;
  float* d_delta;
};

template <int D>
__global__ void __launch_bounds__(PenaltyShape<D>::kThreads, 1)
    penalty_backward_kernel(const BackwardArgs args) {
  using Shape = PenaltyShape<D>;
  constexpr int C = Shape::kBackwardTokens;
  constexpr int G = Shape::kGroup;
  constexpr int E = Shape::kChannels;
  constexpr int kThreads = Shape::kThreads;
  __shared__ alignas(16) float u_tile[2][C * D];
  __shared__ alignas(16) float k_tile[2][C * D];
  __shared__ alignas(16) float a_tile[2][C * D];
  __shared__ alignas(16) float w_tile[2][C * D];
  __shared__ alignas(16) float db_tile[2][C * D];  // da, then db in its place
  __shared__ alignas(16) float more_tile[2][C * D];
  __shared__ float norm_tile[2][C];
  __shared__ float delta_tile[2][C];
  // Per token of the tile, found before the chain begins: -2 / sqrt(delta), and 1 / delta or, where
  // delta is at its floor, 0.
  __shared__ float factor_tile[C];
  __shared__ float inverse_tile[C];
  __shared__ alignas(16) float exchange[2][D];  // G w^, as the forward's
  __shared__ float dw_tile[C][D];
  __shared__ float d_delta_tile[C];

  const int batch = static_cast<int>(blockIdx.x) / args.heads;
  const int head = static_cast<int>(blockIdx.x) % args.heads;
  const int g = threadIdx.x % G;
  const int row = threadIdx.x / G;
  const int tokens = args.tokens;
  const PenaltySettings& settings = args.settings;
  const bool has_more = args.da_more.view.data != nullptr;
  const TileCopier<D, C, kThreads> u_rows(args.u.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> k_rows(args.k.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> a_rows(args.a.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> w_rows(args.w.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> da_rows(args.da.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> more_rows(
      has_more ? args.da_more.lane(batch, head) : TokenRows{}, tokens);
  const Index first_scalar = static_cast<Index>(batch) * tokens * args.heads + head;
  const auto copy = [&](int buffer, int first) {
    u_rows.copy(u_tile[buffer], first);
    k_rows.copy(k_tile[buffer], first);
    a_rows.copy(a_tile[buffer], first);
    w_rows.copy(w_tile[buffer], first);
    da_rows.copy(db_tile[buffer], first);
    if (has_more) more_rows.copy(more_tile[buffer], first);
    copy_scalars<C>(norm_tile[buffer], args.b_norm + first_scalar, args.heads, first, tokens);
    copy_scalars<C>(delta_tile[buffer], args.delta + first_scalar, args.heads, first, tokens);
  };

  float gradient[E] = {};  // G, row `row`
  const int last = (tokens - 1) / C * C;
  copy(0, last);
  close_group();
  for (int first = last, buffer = 0; first >= 0; first -= C, buffer ^= 1) {
    if (first > 0) copy(buffer ^ 1, first - C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
    // (4) db of the tile. Beyond the last token everything is 0 but the floors, which keep it so.
    for (int t = threadIdx.x / kWarp; t < C; t += kThreads / kWarp) {
      float* db = db_tile[buffer] + t * D;
      const float* a = a_tile[buffer] + t * D;
      const float norm = norm_tile[buffer][t];
      float along = 0.0F;
      for (int i = threadIdx.x % kWarp; i < D; i += kWarp) {
        if (has_more) db[i] += more_tile[buffer][t * D + i];
        along = fmaf(a[i], db[i], along);
      }
      along = group_sum<kWarp>(along);
      float scale = 1.0F;
      if (settings.unit_write) scale = 1.0F / at_least(norm, kFloor);
      if (!settings.unit_write || norm < kFloor) along = 0.0F;
      float* out = args.db.data + batch * args.db.batch +
                   static_cast<Index>(first + t) * args.db.token + head * args.db.head;
      for (int i = threadIdx.x % kWarp; i < D; i += kWarp) {
        const float value = fmaf(-a[i], along, db[i]) * scale;
        db[i] = value;
        if (first + t < tokens && i < args.width) out[i] = value;
      }
      if (threadIdx.x % kWarp == 0) {
        const float raw = delta_tile[buffer][t];
        const float delta = at_least(raw, settings.stab_eps);
        factor_tile[t] = -2.0F * inverse_root(delta);
        inverse_tile[t] = raw < settings.stab_eps ? 0.0F : 1.0F / delta;
      }
    }
    __syncthreads();
#pragma unroll 2
    for (int back = 0; back < C; ++back) {
      const int t = C - 1 - back;
      const float* db_row = db_tile[buffer] + t * D;
      float db[E], k[E], u[E], w[E];
      load_spread<D, G>(db_row, g, db);
      load_spread<D, G>(k_tile[buffer] + t * D, g, k);
      load_spread<D, G>(w_tile[buffer] + t * D, g, w);
      const float half_db = 0.5F * db_row[row];
      const float half_k = 0.5F * k_tile[buffer][t * D + row];
#pragma unroll
      for (int e = 0; e < E; ++e) {  // G += sym(db k^T)
        gradient[e] = fmaf(half_db, k[e], fmaf(half_k, db[e], gradient[e]));
      }
      const float own = group_sum<G>(partial_dot<E>(gradient, w));
      float* shared = exchange[back % 2];
      if (g == 0) shared[row] = own;
      // Asked for before the barrier that they would wait at.
      load_spread<D, G>(u_tile[buffer] + t * D, g, u);
      const float own_u = u_tile[buffer][t * D + row];
      const float factor = factor_tile[t];
      const float inverse = inverse_tile[t];
      __syncthreads();
      float gw[E];  // G w^
      load_spread<D, G>(shared, g, gw);
      const float d_delta = inverse * group_sum<G>(partial_dot<E>(w, gw));  // w^T G w / delta^2
      const float dw = fmaf(factor, own, d_delta * own_u);
      const float half_dw = 0.5F * dw;
      const float half_u = 0.5F * own_u;
#pragma unroll
      for (int e = 0; e < E; ++e) {  // G += sym(dw u^T)
        const float other_dw = fmaf(factor, gw[e], d_delta * u[e]);
        gradient[e] = fmaf(half_dw, u[e], fmaf(half_u, other_dw, gradient[e]));
      }
      if (g == 0) dw_tile[t][row] = dw;
      if (threadIdx.x == 0) d_delta_tile[t] = d_delta;
    }
    __syncthreads();
    for (int t = threadIdx.x / kWarp; t < min(C, tokens - first); t += kThreads / kWarp) {
      const Index at = static_cast<Index>(first + t);
      float* dw = args.dw.data + batch * args.dw.batch + at * args.dw.token + head * args.dw.head;
      for (int i = threadIdx.x % kWarp; i < args.width; i += kWarp) dw[i] = dw_tile[t][i];
      if (threadIdx.x % kWarp == 0) {
        args.d_delta[first_scalar + at * args.heads] = d_delta_tile[t];
      }
    }
  }
}

template <int D>
__global__ void __launch_bounds__(ColumnShape<D>::kThreads, 1)
    penalty_reads_kernel(const ColumnForward args) {
  __shared__ ColumnForwardTiles<D, ColumnKind::penalty> tiles;
  column_forward<D, ColumnKind::penalty>(args, tiles);
}

}  // namespace

void penalty_forward(cudaStream_t stream, const PenaltyForward& args) {
  const ForwardArgs kernel_args{.tokens = static_cast<int>(args.dims.tokens),
                                .heads = static_cast<int>(args.dims.heads),
                                .width = static_cast<int>(args.dims.d_h),
                                .settings = args.settings,
                                .u = {args.dims, args.u},
                                .k = {args.dims, args.k},
                                .a = args.a,
                                .w = args.w,
                                .b_norm = args.b_norm,
                                .delta = args.delta,
                                .normaliser = args.normaliser};
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    const unsigned paths = args.normaliser.denominator != nullptr ? 2 : 1;
    const dim3 grid(static_cast<unsigned>(args.dims.lanes()), paths);
    penalty_forward_kernel<D><<<grid, PenaltyShape<D>::kThreads, 0, stream>>>(kernel_args);
  });
  VLA_CUDA_LAUNCHED("penalty_forward_kernel");
}

void penalty_backward(cudaStream_t stream, const PenaltyBackward& args) {
  const BackwardArgs kernel_args{.tokens = static_cast<int>(args.dims.tokens),
                                 .heads = static_cast<int>(args.dims.heads),
                                 .width = static_cast<int>(args.dims.d_h),
                                 .settings = args.settings,
                                 .u = {args.dims, args.u},
                                 .k = {args.dims, args.k},
                                 .a = {args.dims, args.a},
                                 .w = {args.dims, args.w},
                                 .da = {args.dims, args.da},
                                 .da_more = {args.dims, args.da_more},
                                 .b_norm = args.b_norm,
                                 .delta = args.delta,
                                 .db = args.db,
                                 .dw = args.dw,
                                 .d_delta = args.d_delta};
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    penalty_backward_kernel<D>
        <<<static_cast<unsigned>(args.dims.lanes()), PenaltyShape<D>::kThreads, 0, stream>>>(
            kernel_args);
  });
  VLA_CUDA_LAUNCHED("penalty_backward_kernel");
}

void penalty_reads(cudaStream_t stream, const PenaltyReads& args) {
  const ColumnForward kernel_args{.tokens = static_cast<int>(args.dims.tokens),
                                  .heads = static_cast<int>(args.dims.heads),
                                  .width = static_cast<int>(args.dims.d_h),
                                  .x = {args.dims, args.w},
                                  .y = {args.dims, args.w},
                                  .b = {args.dims, args.dw},
                                  .c = {args.dims, args.db},
                                  .gate = {},
                                  .scale = nullptr,
                                  .before = {args.dims, args.du},
                                  .after = {args.dims, args.dk},
                                  .penalty = {.initial = args.settings.inverse_lambda,
                                              .nudge = args.settings.per_eps,
                                              .period = args.settings.period}};
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    using Shape = ColumnShape<D>;
    const dim3 grid(static_cast<unsigned>(args.dims.lanes()), D / Shape::kColumns);
    penalty_reads_kernel<D><<<grid, Shape::kThreads, 0, stream>>>(kernel_args);
  });
  VLA_CUDA_LAUNCHED("penalty_reads_kernel");
}

}  // namespace vla_bench::mixers::cuda
