// The column passes of state_scan.h: dq and dr from S, run through again in time, and da from dS,
// against time; both at once, on different blocks.
#include "core/cuda/check.h"
#include "mixers/cuda/column_scan.cuh"
#include "mixers/cuda/head_size.h"
#include "mixers/cuda/normaliser.cuh"
#include "mixers/cuda/state_scan.h"

namespace vla_bench::mixers::cuda {
namespace {

/// dS_t = diag(g_{t+1}) dS_{t+1} - de_{t+1} r_{t+1}^T + dn_t q_t^T;  da_t = dS_t^T e_t.
struct ColumnBackward {
  int tokens, heads, width;
  TokenSource d_o, e, de, gate;  // along columns
  TokenSource q, r;              // across columns
  const float* scale;            // (B, T, H) or null
  TokenTarget da;
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
  float scale[2][kTokens];                   // 1 without one
  alignas(16) float da[kTokens * kColumns];  // of a tile, written out together
};

/// What a thread reads of a token.
template <int D, ColumnKind kKind>
struct ColumnBackwardOperands {
  static constexpr int kChannels = ColumnShape<D>::kChannels;
  static constexpr int kColumns = ColumnShape<D>::kThreadColumns;
  float y[kChannels], e[kChannels];
  float de[kKind != ColumnKind::plain ? kChannels : 1];
  float gate[kKind == ColumnKind::gated ? kChannels : 1];
  float q[kColumns];
  float r[kKind != ColumnKind::plain ? kColumns : 1];
};

template <int D, ColumnKind kKind>
__device__ inline void column_backward(const ColumnBackward& args,
                                       ColumnBackwardTiles<D, kKind>& tiles) {
  using Shape = ColumnShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int E = Shape::kChannels;
  constexpr int R = Shape::kThreadColumns;
  constexpr int kGroups = Shape::kGroups;
  constexpr int kColumns = Shape::kColumns;
  constexpr bool kResidual = kKind != ColumnKind::plain;
  constexpr bool kGated = kKind == ColumnKind::gated;
  using Operands = ColumnBackwardOperands<D, kKind>;

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

  const TileCopier<D, C, kThreads> y_rows(args.d_o.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> e_rows(args.e.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> de_rows(kResidual ? args.de.lane(batch, head) : TokenRows{},
                                           tokens);
  const TileCopier<D, C, kThreads> gate_rows(kGated ? args.gate.lane(batch, head) : TokenRows{},
                                             tokens);
  const TileCopier<kColumns, C, kThreads> q_rows(args.q.lane(batch, head, first_column), tokens);
  const TileCopier<kColumns, C, kThreads> r_rows(
      kResidual ? args.r.lane(batch, head, first_column) : TokenRows{}, tokens);
  const TileWriter<kColumns, C, kThreads> da_rows(args.da, batch, head, first_column, tokens);
  const auto copy = [&](int buffer, int first) {
    y_rows.copy(tiles.y[buffer], first);
    e_rows.copy(tiles.e[buffer], first);
    q_rows.copy(tiles.q[buffer], first);
    if constexpr (kResidual) {
      de_rows.copy(tiles.de[buffer], first);
      r_rows.copy(tiles.r[buffer], first);
    }
    if constexpr (kGated) gate_rows.copy(tiles.gate[buffer], first);
    if (scale != nullptr) copy_scalars<C>(tiles.scale[buffer], scale, args.heads, first, tokens);
  };

  float ds[R][E] = {};
  const int last = (tokens - 1) / C * C;
  if (scale == nullptr) fill_scalars(tiles.scale);
  copy(0, last);
  close_group();
  for (int first = last, buffer = 0; first >= 0; first -= C, buffer ^= 1) {
    if (first > 0) copy(buffer ^ 1, first - C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
    const auto load = [&](int back, Operands& token) {
      const int t = C - 1 - back;
      load_spread<D, G>(tiles.y[buffer] + t * D, g, token.y);
      load_spread<D, G>(tiles.e[buffer] + t * D, g, token.e);
      if constexpr (kResidual) load_spread<D, G>(tiles.de[buffer] + t * D, g, token.de);
      if constexpr (kGated) load_spread<D, G>(tiles.gate[buffer] + t * D, g, token.gate);
      const float c = tiles.scale[buffer][t];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const int at = t * kColumns + group + kGroups * r;
        token.q[r] = c * tiles.q[buffer][at];
        if constexpr (kResidual) token.r[r] = tiles.r[buffer][at];
      }
    };
    const auto use = [&](int back, const Operands& token) {
      float da[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < E; ++e) ds[r][e] = fmaf(token.y[e], token.q[r], ds[r][e]);
        da[r] = group_sum<G>(partial_dot<E>(ds[r], token.e));
#pragma unroll
        for (int e = 0; e < E; ++e) {
          if constexpr (kGated) ds[r][e] *= token.gate[e];
          if constexpr (kResidual) ds[r][e] = fmaf(-token.de[e], token.r[r], ds[r][e]);
        }
      }
      if (g < R) tiles.da[(C - 1 - back) * kColumns + group + kGroups * g] = pick(da, g);
    };
    walk_tile<C, 2, Shape::kAhead, Operands>(load, use);
    __syncthreads();
    da_rows.write(tiles.da, first);
  }
}

/// Blocks (lane, columns, pass).
enum Pass : unsigned { kStateInTime, kStateAgainstTime, kNormaliserInTime, kNormaliserAgainstTime };

template <int D, ColumnKind kKind>
__global__ void __launch_bounds__(ColumnShape<D>::kThreads, 1)
    state_gradients_kernel(const ColumnForward forward, const ColumnBackward backward,
                           const NormaliserWalks normaliser) {
  __shared__ union {
    ColumnForwardTiles<D, kKind> forward;
    ColumnBackwardTiles<D, kKind> backward;
  } tiles;
  switch (blockIdx.z) {
    case kStateInTime:
      return column_forward<D, kKind>(forward, tiles.forward);
    case kStateAgainstTime:
      return column_backward<D, kKind>(backward, tiles.backward);
    default: {
      constexpr int kColumns = ColumnShape<D>::kColumns;
      walk_gradients(normaliser, forward.tokens, forward.heads, forward.width,
                     static_cast<int>(blockIdx.y) * kColumns, kColumns,
                     blockIdx.z == kNormaliserInTime);
    }
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
                              .before = {scan.dims, args.dr},
                              .after = {scan.dims, args.dq},
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
                                .da = {scan.dims, args.da}};
  with_head_size(scan.dims.d_h, [&](auto d) {
    constexpr int D = d;
    using Shape = ColumnShape<D>;
    const unsigned passes = args.normaliser.d_denominator != nullptr ? 4 : 2;
    const dim3 grid(static_cast<unsigned>(scan.dims.lanes()), D / Shape::kColumns, passes);
    if (scan.gate.data != nullptr) {
      state_gradients_kernel<D, ColumnKind::gated>
          <<<grid, Shape::kThreads, 0, stream>>>(forward, backward, args.normaliser);
    } else if (scan.r.data != nullptr) {
      state_gradients_kernel<D, ColumnKind::residual>
          <<<grid, Shape::kThreads, 0, stream>>>(forward, backward, args.normaliser);
    } else {
      state_gradients_kernel<D, ColumnKind::plain>
          <<<grid, Shape::kThreads, 0, stream>>>(forward, backward, args.normaliser);
    }
  });
  VLA_CUDA_LAUNCHED("state_gradients_kernel");
}

}  // namespace vla_bench::mixers::cuda
