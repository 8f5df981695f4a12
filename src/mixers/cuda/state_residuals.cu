// The chain of de of state_scan.h, against time; numbers are its steps.
#include "core/cuda/check.h"
#include "mixers/cuda/row_scan.cuh"
#include "mixers/cuda/state_scan.h"

namespace vla_bench::mixers::cuda {
namespace {

/// What a thread reads of a token: rows' vectors and its rows' own dn.
template <int D>
struct RowOperands {
  static constexpr int kChannels = RowShape<D>::kChannels;
  float r[kChannels], a[kChannels], q[kChannels];
  float dn[RowShape<D>::kRows];
};

/// With the gate's history in registers (kGateSegment states of a thread's share): at most 16
/// channels of it.
template <int D>
struct GatedRowShape {
  static constexpr int kGroup = D == 128 ? 8 : 4;
  static constexpr int kRows = D <= 32 ? 2 : 1;
  static constexpr int kThreads = D == 16 ? 32 : D == 128 ? 128 : 64;
  static constexpr int kGroups = kThreads / kGroup;
  static constexpr int kBlockRows = kGroups * kRows;
  static constexpr int kChannels = D / kGroup;
  static constexpr int kTokens = static_cast<int>(kGateSegment);
};

template <int D>
struct GatedRowOperands {
  static constexpr int kChannels = GatedRowShape<D>::kChannels;
  static constexpr int kRows = GatedRowShape<D>::kRows;
  float r[kChannels], a[kChannels], q[kChannels];
  float dn[kRows], gate[kRows];
};

struct ResidualArgs {
  int tokens, heads, width;
  TokenSource r, a, q, gate, d_o, e;
  const float* scale;
  const float* checkpoints;
  TokenTarget de, dgate;
};

/// No gate: dS alone.
template <int D, bool kResidual>
__global__ void __launch_bounds__(RowShape<D>::kThreads, 1)
    state_residuals_kernel(const ResidualArgs args) {
  using Shape = RowShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int R = Shape::kRows;
  constexpr int E = Shape::kChannels;
  constexpr int kRows = Shape::kBlockRows;
  constexpr int kThreads = Shape::kThreads;
  __shared__ alignas(16) float r_tile[2][kResidual ? C * D : 4];
  __shared__ alignas(16) float a_tile[2][C * D];
  __shared__ alignas(16) float q_tile[2][C * D];
  __shared__ alignas(16) float y_tile[2][C * kRows];
  __shared__ float scale_tile[2][C];  // 1 without a scale
  __shared__ alignas(16) float de_tile[C * kRows];

  const int tokens = args.tokens;
  const RowBlock block(args.heads, tokens, kRows, args.scale);
  const int g = threadIdx.x % G;
  const int group = threadIdx.x / G;
  const TileCopier<D, C, kThreads> r_rows(
      kResidual ? args.r.lane(block.batch, block.head) : TokenRows{}, tokens);
  const TileCopier<D, C, kThreads> a_rows(args.a.lane(block.batch, block.head), tokens);
  const TileCopier<D, C, kThreads> q_rows(args.q.lane(block.batch, block.head), tokens);
  const TileCopier<kRows, C, kThreads> y_rows(
      args.d_o.lane(block.batch, block.head, block.first_row), tokens);
  const TileWriter<kRows, C, kThreads> de_rows(args.de, block.batch, block.head, block.first_row,
                                               tokens);
  const auto copy = [&](int buffer, int first) {
    if constexpr (kResidual) r_rows.copy(r_tile[buffer], first);
    a_rows.copy(a_tile[buffer], first);
    q_rows.copy(q_tile[buffer], first);
    y_rows.copy(y_tile[buffer], first);
    if (block.scale != nullptr) {
      copy_scalars<C>(scale_tile[buffer], block.scale, args.heads, first, tokens);
    }
  };

  float ds[R][E] = {};
  const int last = (tokens - 1) / C * C;  // first token of the last tile
  if (block.scale == nullptr) fill_scalars(scale_tile);
  copy(0, last);
  close_group();
  for (int first = last, buffer = 0; first >= 0; first -= C, buffer ^= 1) {
    if (first > 0) copy(buffer ^ 1, first - C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
    const auto load = [&](int back, RowOperands<D>& token) {
      const int t = C - 1 - back;
      if constexpr (kResidual) load_spread<D, G>(r_tile[buffer] + t * D, g, token.r);
      load_spread<D, G>(a_tile[buffer] + t * D, g, token.a);
      load_spread<D, G>(q_tile[buffer] + t * D, g, token.q);
      const float c = scale_tile[buffer][t];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        token.dn[r] = c * y_tile[buffer][t * kRows + group + Shape::kGroups * r];
      }
    };
    const auto use = [&](int back, const RowOperands<D>& token) {
      float de[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < E; ++e) ds[r][e] = fmaf(token.dn[r], token.q[e], ds[r][e]);  // 3
        de[r] = group_sum<G>(partial_dot<E>(ds[r], token.a));                            // 2
      }
      if constexpr (kResidual) {  // 1
#pragma unroll
        for (int r = 0; r < R; ++r) {
#pragma unroll
          for (int e = 0; e < E; ++e) ds[r][e] = fmaf(-de[r], token.r[e], ds[r][e]);
        }
      }
      if (g < R) de_tile[(C - 1 - back) * kRows + group + Shape::kGroups * g] = pick(de, g);
    };
    walk_tile<C, 2, true, RowOperands<D>>(load, use);
    __syncthreads();
    de_rows.write(de_tile, first);
  }
}

/// With a gate: a tile is a segment, whose states are run through again from its checkpoint.
template <int D>
__global__ void __launch_bounds__(GatedRowShape<D>::kThreads, 1)
    gated_residuals_kernel(const ResidualArgs args) {
  using Shape = GatedRowShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int R = Shape::kRows;
  constexpr int kGroups = Shape::kGroups;
  constexpr int E = Shape::kChannels;
  constexpr int kRows = Shape::kBlockRows;
  constexpr int kThreads = Shape::kThreads;
  __shared__ alignas(16) float r_tile[2][C * D];
  __shared__ alignas(16) float a_tile[2][C * D];
  __shared__ alignas(16) float q_tile[2][C * D];
  __shared__ alignas(16) float y_tile[2][C * kRows];
  __shared__ alignas(16) float e_tile[2][C * kRows];
  __shared__ alignas(16) float gate_tile[2][C * kRows];
  __shared__ float scale_tile[2][C];  // 1 without a scale
  __shared__ alignas(16) float de_tile[C * kRows];
  __shared__ alignas(16) float dgate_tile[C * kRows];

  const int tokens = args.tokens;
  const RowBlock block(args.heads, tokens, kRows, args.scale);
  const int g = threadIdx.x % G;
  const int group = threadIdx.x / G;
  const int batch = block.batch;
  const int head = block.head;
  const int first_row = block.first_row;
  const TileCopier<D, C, kThreads> r_rows(args.r.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> a_rows(args.a.lane(batch, head), tokens);
  const TileCopier<D, C, kThreads> q_rows(args.q.lane(batch, head), tokens);
  const TileCopier<kRows, C, kThreads> y_rows(args.d_o.lane(batch, head, first_row), tokens);
  const TileCopier<kRows, C, kThreads> e_rows(args.e.lane(batch, head, first_row), tokens);
  const TileCopier<kRows, C, kThreads> gate_rows(args.gate.lane(batch, head, first_row), tokens);
  const TileWriter<kRows, C, kThreads> de_rows(args.de, batch, head, first_row, tokens);
  const TileWriter<kRows, C, kThreads> dgate_rows(args.dgate, batch, head, first_row, tokens);
  const auto copy = [&](int buffer, int first) {
    r_rows.copy(r_tile[buffer], first);
    a_rows.copy(a_tile[buffer], first);
    q_rows.copy(q_tile[buffer], first);
    y_rows.copy(y_tile[buffer], first);
    e_rows.copy(e_tile[buffer], first);
    gate_rows.copy(gate_tile[buffer], first);
    if (block.scale != nullptr) {
      copy_scalars<C>(scale_tile[buffer], block.scale, args.heads, first, tokens);
    }
  };
  const Index segments = (tokens + C - 1) / C;
  const auto load_checkpoint = [&](int first, float(&state)[R][E]) {
    const Index segment = block.lane * segments + first / C;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int row = first_row + group + kGroups * r;
      load_spread<D, G>(args.checkpoints + (segment * D + row) * D, g, state[r]);
    }
  };

  float ds[R][E] = {};
  float ahead[R][E];  // the checkpoint of the next segment visited, asked for one segment early
  const int last = (tokens - 1) / C * C;
  if (block.scale == nullptr) fill_scalars(scale_tile);
  copy(0, last);
  close_group();
  load_checkpoint(last, ahead);
  for (int first = last, buffer = 0; first >= 0; first -= C, buffer ^= 1) {
    float history[C][R][E];  // S before each token of the segment
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int e = 0; e < E; ++e) history[0][r][e] = ahead[r][e];
    }
    if (first > 0) {
      copy(buffer ^ 1, first - C);
      load_checkpoint(first - C, ahead);
    }
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
#pragma unroll
    for (int t = 0; t + 1 < C; ++t) {
      float x[E];
      load_spread<D, G>(a_tile[buffer] + t * D, g, x);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float residual = e_tile[buffer][t * kRows + group + kGroups * r];
        const float gate = gate_tile[buffer][t * kRows + group + kGroups * r];
#pragma unroll
        for (int e = 0; e < E; ++e) {
          history[t + 1][r][e] = fmaf(residual, x[e], gate * history[t][r][e]);
        }
      }
    }
    const auto load = [&](int back, GatedRowOperands<D>& token) {
      const int t = C - 1 - back;
      load_spread<D, G>(r_tile[buffer] + t * D, g, token.r);
      load_spread<D, G>(a_tile[buffer] + t * D, g, token.a);
      load_spread<D, G>(q_tile[buffer] + t * D, g, token.q);
      const float c = scale_tile[buffer][t];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const int at = t * kRows + group + kGroups * r;
        token.dn[r] = c * y_tile[buffer][at];
        token.gate[r] = gate_tile[buffer][at];
      }
    };
    const auto use = [&](int back, const GatedRowOperands<D>& token) {
      const int t = C - 1 - back;
      float de[R], dgate[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < E; ++e) ds[r][e] = fmaf(token.dn[r], token.q[e], ds[r][e]);  // 3
        de[r] = group_sum<G>(partial_dot<E>(ds[r], token.a));                            // 2
        dgate[r] = group_sum<G>(partial_dot<E>(ds[r], history[t][r]));
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {  // 1
#pragma unroll
        for (int e = 0; e < E; ++e) {
          ds[r][e] = fmaf(-de[r], token.r[e], token.gate[r] * ds[r][e]);
        }
      }
      if (g < R) {
        const int at = t * kRows + group + kGroups * g;
        de_tile[at] = pick(de, g);
        dgate_tile[at] = pick(dgate, g);
      }
    };
    walk_tile<C, C, true, GatedRowOperands<D>>(load, use);  // unrolled: history is in registers
    __syncthreads();
    de_rows.write(de_tile, first);
    dgate_rows.write(dgate_tile, first);
  }
}

}  // namespace

void state_residuals(cudaStream_t stream, const StateScan& scan, const StateResiduals& args) {
  const ResidualArgs kernel_args{.tokens = static_cast<int>(scan.dims.tokens),
                                 .heads = static_cast<int>(scan.dims.heads),
                                 .width = static_cast<int>(scan.dims.d_h),
                                 .r = {scan.dims, scan.r},
                                 .a = {scan.dims, scan.a},
                                 .q = {scan.dims, scan.q},
                                 .gate = {scan.dims, scan.gate},
                                 .d_o = {scan.dims, args.d_o},
                                 .e = {scan.dims, args.e},
                                 .scale = scan.scale,
                                 .checkpoints = args.checkpoints,
                                 .de = {scan.dims, args.de},
                                 .dgate = {scan.dims, args.dgate}};
  with_head_size(scan.dims.d_h, [&](auto d) {
    constexpr int D = d;
    const auto lanes = static_cast<unsigned>(scan.dims.lanes());
    if (scan.gate.data != nullptr) {
      using Shape = GatedRowShape<D>;
      gated_residuals_kernel<D>
          <<<dim3(lanes, D / Shape::kBlockRows), Shape::kThreads, 0, stream>>>(kernel_args);
      return;
    }
    using Shape = RowShape<D>;
    const dim3 grid(lanes, D / Shape::kBlockRows);
    if (scan.r.data != nullptr) {
      state_residuals_kernel<D, true><<<grid, Shape::kThreads, 0, stream>>>(kernel_args);
    } else {
      state_residuals_kernel<D, false><<<grid, Shape::kThreads, 0, stream>>>(kernel_args);
    }
  });
  VLA_CUDA_LAUNCHED("state_residuals_kernel");
}

}  // namespace vla_bench::mixers::cuda
