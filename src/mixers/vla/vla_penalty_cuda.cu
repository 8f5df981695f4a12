#include "core/cuda/check.h"
#include "mixers/cuda/column_scan.cuh"
#include "mixers/cuda/head_size.h"
#include "mixers/cuda/token_tiles.cuh"
#include "mixers/feature_floor.h"
#include "mixers/vla/vla_penalty_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

constexpr int kWarp = 32;
constexpr float kFloor = static_cast<float>(kUnitFloor);

/// A lane's matrix lies on one block, a row on kGroup threads.
template <int D>
struct PenaltyShape {
  static constexpr int kGroup = D == 16 ? 2 : 4;
  static constexpr int kThreads = D * kGroup;
  static constexpr int kChannels = D / kGroup;
  static constexpr int kTokens = 8;  // of a tile: the backward holds five of them twice
};

struct ForwardArgs {
  int tokens, heads, width;
  PenaltySettings settings;
  TokenSource u, k;
  TokenView<float> a, w;
  float* b_norm;
  float* delta;
};

/// What is added to A and b after token t (from 0).
__device__ inline bool is_nudged(const PenaltySettings& settings, int t) {
  return settings.period > 0 && (t + 1) % settings.period == 0;
}

template <int D>
__global__ void __launch_bounds__(PenaltyShape<D>::kThreads)
    penalty_forward_kernel(const ForwardArgs args) {
  using Shape = PenaltyShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int E = Shape::kChannels;
  constexpr int kThreads = Shape::kThreads;
  __shared__ alignas(16) float u_tile[2][C * D];
  __shared__ alignas(16) float k_tile[2][C * D];
  // Of the token at hand and the one before: who is slow may still read the one before.
  __shared__ alignas(16) float w_exchange[2][D];
  // Of a tile, written out together.
  __shared__ float b_tile[C][D];
  __shared__ float w_tile[C][D];
  __shared__ float delta_tile[C];

  const int batch = blockIdx.x / args.heads;
  const int head = blockIdx.x % args.heads;
  const int g = threadIdx.x % G;
  const int row = threadIdx.x / G;
  const int tokens = args.tokens;
  const PenaltySettings& settings = args.settings;
  const TokenRows u_rows = args.u.lane(batch, head);
  const TokenRows k_rows = args.k.lane(batch, head);
  const auto copy = [&](int buffer, int first) {
    copy_tile<D, C, kThreads>(u_tile[buffer], u_rows, first, tokens);
    copy_tile<D, C, kThreads>(k_tile[buffer], k_rows, first, tokens);
  };

  float matrix[E];  // A, row `row`, channels channel_of(g, .)
#pragma unroll
  for (int e = 0; e < E; ++e) {
    matrix[e] = channel_of<G>(g, e) == row ? settings.inverse_lambda : 0.0F;
  }
  copy(0, 0);
  close_group();
  for (int first = 0, buffer = 0; first < tokens; first += C, buffer ^= 1) {
    if (first + C < tokens) copy(buffer ^ 1, first + C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
#pragma unroll 2
    for (int t = 0; t < C; ++t) {
      float u[E], k[E];
      load_spread<D, G>(u_tile[buffer] + t * D, g, u);
      load_spread<D, G>(k_tile[buffer] + t * D, g, k);
      const float own_w = group_sum<G>(partial_dot<E>(matrix, u));
      const float own_y = group_sum<G>(partial_dot<E>(matrix, k));
      float* exchange = w_exchange[t % 2];
      if (g == 0) exchange[row] = own_w;
      __syncthreads();
      float w[E];
      load_spread<D, G>(exchange, g, w);
      const float delta = 1.0F + group_sum<G>(partial_dot<E>(u, w));
      const float along_k = group_sum<G>(partial_dot<E>(k, w));
      const float inverse_root = __frsqrt_rn(at_least(delta, settings.stab_eps));
      const float scaled_w = own_w * inverse_root;
#pragma unroll
      for (int e = 0; e < E; ++e) {
        matrix[e] = fmaf(-scaled_w, w[e] * inverse_root, matrix[e]);
      }
      float b = fmaf(-scaled_w, along_k * inverse_root, own_y);
      if (is_nudged(settings, first + t)) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          if (channel_of<G>(g, e) == row) matrix[e] += settings.per_eps;
        }
        b = fmaf(settings.per_eps, k_tile[buffer][t * D + row], b);
      }
      if (g == 0) {
        b_tile[t][row] = b;
        w_tile[t][row] = scaled_w;
      }
      if (threadIdx.x == 0) delta_tile[t] = delta;
    }
    __syncthreads();
    for (int t = threadIdx.x / kWarp; t < min(C, tokens - first); t += kThreads / kWarp) {
      const Index at = static_cast<Index>(first + t);
      float squares = 0.0F;
      for (int i = threadIdx.x % kWarp; i < D; i += kWarp) {
        squares = fmaf(b_tile[t][i], b_tile[t][i], squares);
      }
      const float norm = sqrtf(group_sum<kWarp>(squares));
      const float scale = settings.unit_write ? 1.0F / at_least(norm, kFloor) : 1.0F;
      float* a = args.a.data + batch * args.a.batch + at * args.a.token + head * args.a.head;
      for (int i = threadIdx.x % kWarp; i < args.width; i += kWarp) a[i] = b_tile[t][i] * scale;
      if (args.w.data != nullptr) {
        float* w = args.w.data + batch * args.w.batch + at * args.w.token + head * args.w.head;
        for (int i = threadIdx.x % kWarp; i < args.width; i += kWarp) w[i] = w_tile[t][i];
        if (threadIdx.x % kWarp == 0) {
          const Index scalar = (static_cast<Index>(batch) * tokens + at) * args.heads + head;
          args.b_norm[scalar] = norm;
          args.delta[scalar] = delta_tile[t];
        }
      }
    }
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
__global__ void __launch_bounds__(PenaltyShape<D>::kThreads)
    penalty_backward_kernel(const BackwardArgs args) {
  using Shape = PenaltyShape<D>;
  // Half a tile of the forward at d = 128: six tiles are held twice.
  constexpr int C = D == 128 ? 4 : Shape::kTokens;
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
  __shared__ alignas(16) float exchange[2][D];  // G w^, as w_exchange of the forward
  __shared__ float dw_tile[C][D];
  __shared__ float d_delta_tile[C];

  const int batch = blockIdx.x / args.heads;
  const int head = blockIdx.x % args.heads;
  const int g = threadIdx.x % G;
  const int row = threadIdx.x / G;
  const int tokens = args.tokens;
  const PenaltySettings& settings = args.settings;
  const bool has_more = args.da_more.view.data != nullptr;
  const TokenRows u_rows = args.u.lane(batch, head);
  const TokenRows k_rows = args.k.lane(batch, head);
  const TokenRows a_rows = args.a.lane(batch, head);
  const TokenRows w_rows = args.w.lane(batch, head);
  const TokenRows da_rows = args.da.lane(batch, head);
  const TokenRows more_rows = has_more ? args.da_more.lane(batch, head) : TokenRows{};
  const Index first_scalar = static_cast<Index>(batch) * tokens * args.heads + head;
  const auto copy = [&](int buffer, int first) {
    copy_tile<D, C, kThreads>(u_tile[buffer], u_rows, first, tokens);
    copy_tile<D, C, kThreads>(k_tile[buffer], k_rows, first, tokens);
    copy_tile<D, C, kThreads>(a_tile[buffer], a_rows, first, tokens);
    copy_tile<D, C, kThreads>(w_tile[buffer], w_rows, first, tokens);
    copy_tile<D, C, kThreads>(db_tile[buffer], da_rows, first, tokens);
    if (has_more) copy_tile<D, C, kThreads>(more_tile[buffer], more_rows, first, tokens);
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
    // (4) db of the tile. Beyond the last token everything is 0 but the floor, which keeps it so.
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
    }
    __syncthreads();
#pragma unroll 2
    for (int back = 0; back < C; ++back) {
      const int t = C - 1 - back;
      const float* db_row = db_tile[buffer] + t * D;
      float x[E], y[E];
      load_spread<D, G>(db_row, g, x);
      load_spread<D, G>(k_tile[buffer] + t * D, g, y);
      const float half_db = 0.5F * db_row[row];
      const float half_k = 0.5F * k_tile[buffer][t * D + row];
#pragma unroll
      for (int e = 0; e < E; ++e) {  // G += sym(db k^T)
        gradient[e] = fmaf(half_db, y[e], fmaf(half_k, x[e], gradient[e]));
      }
      float w[E];
      load_spread<D, G>(w_tile[buffer] + t * D, g, w);
      const float own = group_sum<G>(partial_dot<E>(gradient, w));
      float* shared = exchange[back % 2];
      if (g == 0) shared[row] = own;
      __syncthreads();
      load_spread<D, G>(shared, g, x);  // G w^
      load_spread<D, G>(u_tile[buffer] + t * D, g, y);
      const float raw_delta = delta_tile[buffer][t];
      const bool floored = raw_delta < settings.stab_eps;
      const float delta = floored ? settings.stab_eps : raw_delta;
      const float along = group_sum<G>(partial_dot<E>(w, x));  // w^T G w / delta
      const float d_delta = floored ? 0.0F : along / delta;
      const float factor = -2.0F * __frsqrt_rn(delta);
      const float u = u_tile[buffer][t * D + row];
      const float dw = fmaf(factor, own, d_delta * u);
      const float half_dw = 0.5F * dw;
      const float half_u = 0.5F * u;
#pragma unroll
      for (int e = 0; e < E; ++e) {  // G += sym(dw u^T)
        const float other_dw = fmaf(factor, x[e], d_delta * y[e]);
        gradient[e] = fmaf(half_dw, y[e], fmaf(half_u, other_dw, gradient[e]));
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
__global__ void __launch_bounds__(ColumnShape<D>::kThreads)
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
                                .delta = args.delta};
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    penalty_forward_kernel<D>
        <<<static_cast<unsigned>(args.dims.lanes()), PenaltyShape<D>::kThreads, 0, stream>>>(
            kernel_args);
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
                                  .before = args.du,
                                  .after = args.dk,
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
