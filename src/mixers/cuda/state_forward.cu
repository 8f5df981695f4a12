// The forward of state_scan.h; numbers are its steps.
#include "core/cuda/check.h"
#include "mixers/cuda/row_scan.cuh"
#include "mixers/cuda/state_scan.h"

namespace vla_bench::mixers::cuda {
namespace {

/// What a thread reads of a token: rows' vectors and its rows' own numbers.
template <int D>
struct RowOperands {
  static constexpr int kChannels = RowShape<D>::kChannels;
  static constexpr int kRows = RowShape<D>::kRows;
  float r[kChannels], a[kChannels], q[kChannels];
  float v[kRows], gate[kRows];
  float scale;
};

/// What the normaliser's warp reads of a token.
template <int D>
struct SumOperands {
  float a[RowShape<D>::kChannels], q[RowShape<D>::kChannels];
};

struct ForwardArgs {
  int tokens, heads, width;
  TokenSource r, a, q, gate, v;
  const float* scale;
  TokenTarget o, e;
  float* checkpoints;
  float* denominator;
  float floor;
};

constexpr int kWarp = 32;

/// Without r a warp more, for the normaliser.
template <int D, bool kResidual>
inline constexpr int kForwardThreads = RowShape<D>::kThreads + (kResidual ? 0 : kWarp);

template <int D, bool kResidual, bool kGated>
__global__ void __launch_bounds__(kForwardThreads<D, kResidual>, 1)
    state_forward_kernel(const ForwardArgs args) {
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
  __shared__ alignas(16) float v_tile[2][C * kRows];
  __shared__ alignas(16) float gate_tile[2][kGated ? C * kRows : 4];
  __shared__ float scale_tile[2][C];  // 1 without a scale; without r the normaliser's 1 / c
  // Results of a tile, written out together: no store interrupts the chain of tokens.
  __shared__ alignas(16) float o_tile[C * kRows];
  __shared__ alignas(16) float e_tile[C * kRows];

  const int tokens = args.tokens;
  const RowBlock block(args.heads, tokens, kRows, args.scale);
  const int g = threadIdx.x % G;
  const int group = threadIdx.x / G;
  // Whole warps: those before have the rows and do all the copying.
  const bool normalises = !kResidual && threadIdx.x >= kThreads;
  const TileCopier<D, C, kThreads> r_rows(
      kResidual ? args.r.lane(block.batch, block.head) : TokenRows{}, tokens);
  const TileCopier<D, C, kThreads> a_rows(args.a.lane(block.batch, block.head), tokens);
  const TileCopier<D, C, kThreads> q_rows(args.q.lane(block.batch, block.head), tokens);
  const TileCopier<kRows, C, kThreads> v_rows(args.v.lane(block.batch, block.head, block.first_row),
                                              tokens);
  const TileCopier<kRows, C, kThreads> gate_rows(
      kGated ? args.gate.lane(block.batch, block.head, block.first_row) : TokenRows{}, tokens);
  const TileWriter<kRows, C, kThreads> o_rows(args.o, block.batch, block.head, block.first_row,
                                              tokens);
  const TileWriter<kRows, C, kThreads> e_rows(args.e, block.batch, block.head, block.first_row,
                                              tokens);
  const auto copy = [&](int buffer, int first) {
    if (normalises) return;
    if constexpr (kResidual) r_rows.copy(r_tile[buffer], first);
    a_rows.copy(a_tile[buffer], first);
    q_rows.copy(q_tile[buffer], first);
    v_rows.copy(v_tile[buffer], first);
    if constexpr (kGated) gate_rows.copy(gate_tile[buffer], first);
    if (block.scale != nullptr) {
      copy_scalars<C>(scale_tile[buffer], block.scale, args.heads, first, tokens);
    }
  };

  float s[R][E] = {};  // row group + kGroups r, channels channel_of(g, .)
  float z[E] = {};     // channels channel_of(g, .), the same in every group of the warp
  if (kResidual && block.scale == nullptr) fill_scalars(scale_tile);
  copy(0, 0);
  close_group();
  for (int first = 0, buffer = 0; first < tokens; first += C, buffer ^= 1) {
    if (first + C < tokens) copy(buffer ^ 1, first + C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();  // also: the tile before this one is written out
    const auto load = [&](int t, RowOperands<D>& token) {
      if constexpr (kResidual) load_spread<D, G>(r_tile[buffer] + t * D, g, token.r);
      load_spread<D, G>(a_tile[buffer] + t * D, g, token.a);
      load_spread<D, G>(q_tile[buffer] + t * D, g, token.q);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const int at = t * kRows + group + Shape::kGroups * r;
        token.v[r] = v_tile[buffer][at];
        if constexpr (kGated) token.gate[r] = gate_tile[buffer][at];
      }
      token.scale = kResidual ? scale_tile[buffer][t] : 1.0F;
    };
    const auto use = [&](int t, const RowOperands<D>& token) {
      if constexpr (kGated) {
        if (t % kGateSegment == 0 && args.checkpoints != nullptr && first + t < tokens) {
          const Index segments = (tokens + kGateSegment - 1) / kGateSegment;
          const Index segment = block.lane * segments + (first + t) / kGateSegment;
#pragma unroll
          for (int r = 0; r < R; ++r) {
            const int row = block.first_row + group + Shape::kGroups * r;
            store_spread<D, G>(args.checkpoints + (segment * D + row) * D, g, s[r]);
          }
        }
      }
      float residual[R], read[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        residual[r] = token.v[r];
        if constexpr (kResidual) residual[r] -= group_sum<G>(partial_dot<E>(s[r], token.r));  // 1
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < E; ++e) {  // 2
          s[r][e] = fmaf(residual[r], token.a[e], kGated ? token.gate[r] * s[r][e] : s[r][e]);
        }
        read[r] = group_sum<G>(partial_dot<E>(s[r], token.q)) * token.scale;  // 3
      }
      if (g < R) {
        const int at = t * kRows + group + Shape::kGroups * g;
        o_tile[at] = pick(read, g);
        e_tile[at] = pick(residual, g);
      }
    };
    if (normalises) {
      const int own = static_cast<int>(threadIdx.x) - kThreads;  // the token whose c is kept
      float c = 0.0F;
      const auto load_sum = [&](int t, SumOperands<D>& token) {
        load_spread<D, G>(a_tile[buffer] + t * D, g, token.a);
        load_spread<D, G>(q_tile[buffer] + t * D, g, token.q);
      };
      const auto use_sum = [&](int t, const SumOperands<D>& token) {
#pragma unroll
        for (int e = 0; e < E; ++e) z[e] += token.a[e];
        const float along = group_sum<G>(partial_dot<E>(z, token.q));
        if (t == own) c = along;
      };
      walk_tile<C, 2, true, SumOperands<D>>(load_sum, use_sum);
      if (own < C) {
        scale_tile[buffer][own] = 1.0F / at_least(c, args.floor);
        if (blockIdx.y == 0 && first + own < tokens) {
          const Index row = static_cast<Index>(block.batch) * tokens + first + own;
          args.denominator[row * args.heads + block.head] = c;
        }
      }
    } else {
      walk_tile<C, 2, true, RowOperands<D>>(load, use);
    }
    __syncthreads();
    if (normalises) continue;
    if constexpr (kResidual) {
      o_rows.write(o_tile, first);
    } else {  // known now; written again two tiles on, after the barrier above
      o_rows.write(o_tile, first, scale_tile[buffer]);
    }
    if (args.e.view.data != nullptr) {
      e_rows.write(e_tile, first);
    }
  }
}

}  // namespace

void state_forward(cudaStream_t stream, const StateScan& scan, const StateForward& args) {
  const ForwardArgs kernel_args{.tokens = static_cast<int>(scan.dims.tokens),
                                .heads = static_cast<int>(scan.dims.heads),
                                .width = static_cast<int>(scan.dims.d_h),
                                .r = {scan.dims, scan.r},
                                .a = {scan.dims, scan.a},
                                .q = {scan.dims, scan.q},
                                .gate = {scan.dims, scan.gate},
                                .v = {scan.dims, args.v},
                                .scale = scan.scale,
                                .o = {scan.dims, args.o},
                                .e = {scan.dims, args.e},
                                .checkpoints = args.checkpoints,
                                .denominator = args.denominator,
                                .floor = args.floor};
  with_head_size(scan.dims.d_h, [&](auto d) {
    constexpr int D = d;
    using Shape = RowShape<D>;
    const dim3 grid(static_cast<unsigned>(scan.dims.lanes()), D / Shape::kBlockRows);
    if (scan.gate.data != nullptr) {
      state_forward_kernel<D, true, true>
          <<<grid, kForwardThreads<D, true>, 0, stream>>>(kernel_args);
    } else if (scan.r.data != nullptr) {
      state_forward_kernel<D, true, false>
          <<<grid, kForwardThreads<D, true>, 0, stream>>>(kernel_args);
    } else {
      state_forward_kernel<D, false, false>
          <<<grid, kForwardThreads<D, false>, 0, stream>>>(kernel_args);
    }
  });
  VLA_CUDA_LAUNCHED("state_forward_kernel");
}

}  // namespace vla_bench::mixers::cuda
