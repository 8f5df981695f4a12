// The column passes of state_scan.h: dq and dr from S, run through again in time, and da from dS,
// against time; both at once, on different blocks.
#include "core/cuda/check.h"
#include "mixers/cuda/column_scan.cuh"
#include "mixers/cuda/head_size.h"
#include "mixers/cuda/state_scan.h"

namespace vla_bench::mixers::cuda {
namespace {

/// dS_t = diag(g_{t+1}) dS_{t+1} - de_{t+1} r_{t+1}^T + dn_t q_t^T;  da_t = dS_t^T e_t.
struct ColumnBackward {
  int tokens, heads, width;
  TokenSource d_o, e, de, gate;  // along columns
  TokenSource q, r;              // across columns
  const float* scale;            // (B, T, H) or null
  TokenView<float> da;
};

template <int D, ColumnKind kKind>
struct ColumnBackwardTiles {
  static constexpr int kTokens = ColumnShape<D>::kTokens;
  static constexpr int kColumns = ColumnShape<D>::kColumns;
  static constexpr bool kResidual = kKind != ColumnKind::plain;
  static constexpr bool kGated = kKind == ColumnKind::gated;
  alignas(16) float y[2][kTokens * D];
  alignas(16) float e[2][kTokens * D];
  alignas(16) float de[2][kResidual ? kTokens * D : 4];
  alignas(16) float gate[2][kGated ? kTokens * D : 4];
  alignas(16) float q[2][kTokens * kColumns];
  alignas(16) float r[2][kResidual ? kTokens * kColumns : 4];
  float scale[2][kTokens];
};

template <int D, ColumnKind kKind>
__device__ inline void column_backward(const ColumnBackward& args,
                                       ColumnBackwardTiles<D, kKind>& tiles) {
  using Shape = ColumnShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int E = Shape::kChannels;
  constexpr int kColumns = Shape::kColumns;
  constexpr bool kResidual = kKind != ColumnKind::plain;
  constexpr bool kGated = kKind == ColumnKind::gated;

  const int lane = blockIdx.x;
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first_column = blockIdx.y * kColumns;
  const int g = threadIdx.x % G;
  const int local = threadIdx.x / G;
  const int tokens = args.tokens;

  const TokenRows y_rows = args.d_o.lane(batch, head);
  const TokenRows e_rows = args.e.lane(batch, head);
  const TokenRows de_rows = kResidual ? args.de.lane(batch, head) : TokenRows{};
  const TokenRows gate_rows = kGated ? args.gate.lane(batch, head) : TokenRows{};
  const TokenRows q_rows = args.q.lane(batch, head, first_column);
  const TokenRows r_rows = kResidual ? args.r.lane(batch, head, first_column) : TokenRows{};
  const float* scale = nullptr;
  if (args.scale != nullptr) {
    scale = args.scale + static_cast<Index>(batch) * tokens * args.heads + head;
  }

  const auto copy = [&](int buffer, int first) {
    copy_tile<D, C, Shape::kThreads>(tiles.y[buffer], y_rows, first, tokens);
    copy_tile<D, C, Shape::kThreads>(tiles.e[buffer], e_rows, first, tokens);
    copy_tile<kColumns, C, Shape::kThreads>(tiles.q[buffer], q_rows, first, tokens);
    if constexpr (kResidual) {
      copy_tile<D, C, Shape::kThreads>(tiles.de[buffer], de_rows, first, tokens);
      copy_tile<kColumns, C, Shape::kThreads>(tiles.r[buffer], r_rows, first, tokens);
    }
    if constexpr (kGated) {
      copy_tile<D, C, Shape::kThreads>(tiles.gate[buffer], gate_rows, first, tokens);
    }
    if (scale != nullptr) copy_scalars<C>(tiles.scale[buffer], scale, args.heads, first, tokens);
  };

  float ds[E] = {};
  const int last = (tokens - 1) / C * C;
  copy(0, last);
  close_group();
  for (int first = last, buffer = 0; first >= 0; first -= C, buffer ^= 1) {
    if (first > 0) copy(buffer ^ 1, first - C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();
#pragma unroll 2
    for (int back = 0; back < C; ++back) {
      const int t = C - 1 - back;
      float vector[E];
      load_spread<D, G>(tiles.y[buffer] + t * D, g, vector);
      const float c = scale != nullptr ? tiles.scale[buffer][t] : 1.0F;
      const float q = c * tiles.q[buffer][t * kColumns + local];
#pragma unroll
      for (int e = 0; e < E; ++e) ds[e] = fmaf(vector[e], q, ds[e]);
      load_spread<D, G>(tiles.e[buffer] + t * D, g, vector);
      const float da = group_sum<G>(partial_dot<E>(ds, vector));
      if (g == 0 && first + t < tokens && first_column + local < args.width) {
        const Index at = static_cast<Index>(first + t);
        args.da.data[batch * args.da.batch + at * args.da.token + head * args.da.head +
                     first_column + local] = da;
      }
      if constexpr (kGated) {
        load_spread<D, G>(tiles.gate[buffer] + t * D, g, vector);
#pragma unroll
        for (int e = 0; e < E; ++e) ds[e] *= vector[e];
      }
      if constexpr (kResidual) {
        load_spread<D, G>(tiles.de[buffer] + t * D, g, vector);
        const float r = tiles.r[buffer][t * kColumns + local];
#pragma unroll
        for (int e = 0; e < E; ++e) ds[e] = fmaf(-vector[e], r, ds[e]);
      }
    }
    __syncthreads();
  }
}

template <int D, ColumnKind kKind>
__global__ void __launch_bounds__(ColumnShape<D>::kThreads)
    state_gradients_kernel(const ColumnForward forward, const ColumnBackward backward) {
  __shared__ union {
    ColumnForwardTiles<D, kKind> forward;
    ColumnBackwardTiles<D, kKind> backward;
  } tiles;
  if (blockIdx.z == 0) {
    column_forward<D, kKind>(forward, tiles.forward);
  } else {
    column_backward<D, kKind>(backward, tiles.backward);
  }
}

}  // namespace

void state_gradients(cudaStream_t stream, const StateScan& scan, const StateGradients& args) {
  const auto tokens = static_cast<int>(scan.dims.tokens);
  const auto heads = static_cast<int>(scan.dims.heads);
  const auto width = static_cast<int>(scan.dims.d_h);
  const ColumnForward forward{.tokens = tokens,
                              .heads = heads,
                              .width = width,
                              .x = {scan.dims, args.e},
                              .y = {scan.dims, scan.a},
                              .b = {scan.dims, args.de},
                              .c = {scan.dims, args.d_o},
                              .gate = {scan.dims, scan.gate},
                              .scale = scan.scale,
                              .before = args.dr,
                              .after = args.dq,
                              .penalty = {}};
  const ColumnBackward backward{.tokens = tokens,
                                .heads = heads,
                                .width = width,
                                .d_o = {scan.dims, args.d_o},
                                .e = {scan.dims, args.e},
                                .de = {scan.dims, args.de},
                                .gate = {scan.dims, scan.gate},
                                .q = {scan.dims, scan.q},
                                .r = {scan.dims, scan.r},
                                .scale = scan.scale,
                                .da = args.da};
  with_head_size(scan.dims.d_h, [&](auto d) {
    constexpr int D = d;
    using Shape = ColumnShape<D>;
    const dim3 grid(static_cast<unsigned>(scan.dims.lanes()), D / Shape::kColumns, 2);
    if (scan.gate.data != nullptr) {
      state_gradients_kernel<D, ColumnKind::gated>
          <<<grid, Shape::kThreads, 0, stream>>>(forward, backward);
    } else if (scan.r.data != nullptr) {
      state_gradients_kernel<D, ColumnKind::residual>
          <<<grid, Shape::kThreads, 0, stream>>>(forward, backward);
    } else {
      state_gradients_kernel<D, ColumnKind::plain>
          <<<grid, Shape::kThreads, 0, stream>>>(forward, backward);
    }
  });
  VLA_CUDA_LAUNCHED("state_gradients_kernel");
}

}  // namespace vla_bench::mixers::cuda
