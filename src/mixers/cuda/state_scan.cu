// The row passes of state_scan.h: the forward, and the chain of de. Numbers are its steps.
#include "core/cuda/check.h"
#include "mixers/cuda/state_scan.h"
#include "mixers/cuda/token_tiles.cuh"

namespace vla_bench::mixers::cuda {
namespace {

/// A row of S lies on kGroup threads; a thread holds its share of kRows rows, so that a vector read
/// from shared memory serves several rows. Blocks are small: rows that fit into one warp or two
/// need no more, and short blocks spread over more multiprocessors.
template <int D>
struct RowShape {
  static constexpr int kGroup = 4;
  static constexpr int kRows = D <= 32 ? 2 : 1;
  static constexpr int kThreads = D == 16 ? 32 : 64;
  static constexpr int kGroups = kThreads / kGroup;
  static constexpr int kBlockRows = kGroups * kRows;
  static constexpr int kChannels = D / kGroup;
  static constexpr int kTokens = D == 128 ? 8 : 16;  // of a tile: two of them fit into 48 KiB
};

/// With the gate's history in registers (kGateSegment states of a thread's share): one row a
/// thread, at most 16 channels of it.
template <int D>
struct GatedRowShape {
  static constexpr int kGroup = D == 128 ? 8 : 4;
  static constexpr int kThreads = D == 16 ? 64 : D == 64 ? 64 : 128;
  static constexpr int kBlockRows = kThreads / kGroup;
  static constexpr int kChannels = D / kGroup;
  static constexpr int kTokens = static_cast<int>(kGateSegment);
};

struct ForwardArgs {
  int tokens, heads, width;
  TokenSource r, a, q, gate, v;
  const float* scale;
  TokenView<float> o, e;
  float* checkpoints;
};

template <int D, bool kResidual, bool kGated>
__global__ void __launch_bounds__(RowShape<D>::kThreads)
    state_forward_kernel(const ForwardArgs args) {
  using Shape = RowShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int R = Shape::kRows;
  constexpr int E = Shape::kChannels;
  constexpr int kRows = Shape::kBlockRows;
  __shared__ alignas(16) float r_tile[2][kResidual ? C * D : 4];
  __shared__ alignas(16) float a_tile[2][C * D];
  __shared__ alignas(16) float q_tile[2][C * D];
  __shared__ alignas(16) float v_tile[2][C * kRows];
  __shared__ alignas(16) float gate_tile[2][kGated ? C * kRows : 4];
  __shared__ float scale_tile[2][C];

  const int lane = blockIdx.x;
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first_row = blockIdx.y * kRows;
  const int g = threadIdx.x % G;
  const int group = threadIdx.x / G;
  const int tokens = args.tokens;

  const TokenRows r_rows = kResidual ? args.r.lane(batch, head) : TokenRows{};
  const TokenRows a_rows = args.a.lane(batch, head);
  const TokenRows q_rows = args.q.lane(batch, head);
  const TokenRows v_rows = args.v.lane(batch, head, first_row);
  const TokenRows gate_rows = kGated ? args.gate.lane(batch, head, first_row) : TokenRows{};
  const float* scale = nullptr;
  if (args.scale != nullptr) {
    scale = args.scale + static_cast<Index>(batch) * tokens * args.heads + head;
  }

  const auto copy = [&](int buffer, int first) {
    if constexpr (kResidual) {
      copy_tile<D, C, Shape::kThreads>(r_tile[buffer], r_rows, first, tokens);
    }
    copy_tile<D, C, Shape::kThreads>(a_tile[buffer], a_rows, first, tokens);
    copy_tile<D, C, Shape::kThreads>(q_tile[buffer], q_rows, first, tokens);
    copy_tile<kRows, C, Shape::kThreads>(v_tile[buffer], v_rows, first, tokens);
    if constexpr (kGated) {
      copy_tile<kRows, C, Shape::kThreads>(gate_tile[buffer], gate_rows, first, tokens);
    }
    if (scale != nullptr) copy_scalars<C>(scale_tile[buffer], scale, args.heads, first, tokens);
  };

  float s[R][E] = {};  // row group + kGroups r, channels channel_of(g, .)
  copy(0, 0);
  close_group();
  for (int first = 0, buffer = 0; first < tokens; first += C, buffer ^= 1) {
    if (first + C < tokens) copy(buffer ^ 1, first + C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();
#pragma unroll 4
    for (int t = 0; t < C; ++t) {
      const bool valid = first + t < tokens;
      if (kGated && args.checkpoints != nullptr && (first + t) % kGateSegment == 0 && valid) {
        const Index segments = (tokens + kGateSegment - 1) / kGateSegment;
        float* checkpoint =
            args.checkpoints + (lane * segments + (first + t) / kGateSegment) * D * D;
#pragma unroll
        for (int r = 0; r < R; ++r) {
          store_spread<D, G>(checkpoint + (first_row + group + Shape::kGroups * r) * D, g, s[r]);
        }
      }
      float x[E];
      float residual[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        residual[r] = v_tile[buffer][t * kRows + group + Shape::kGroups * r];
      }
      if constexpr (kResidual) {  // 1
        load_spread<D, G>(r_tile[buffer] + t * D, g, x);
#pragma unroll
        for (int r = 0; r < R; ++r) residual[r] -= group_sum<G>(partial_dot<E>(s[r], x));
      }
      load_spread<D, G>(a_tile[buffer] + t * D, g, x);  // 2
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float gate =
            kGated ? gate_tile[buffer][t * kRows + group + Shape::kGroups * r] : 1.0F;
#pragma unroll
        for (int e = 0; e < E; ++e) {
          s[r][e] = fmaf(residual[r], x[e], kGated ? gate * s[r][e] : s[r][e]);
        }
      }
      load_spread<D, G>(q_tile[buffer] + t * D, g, x);  // 3
      const float c = scale != nullptr ? scale_tile[buffer][t] : 1.0F;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float n = group_sum<G>(partial_dot<E>(s[r], x));
        const int row = first_row + group + Shape::kGroups * r;
        if (g == r && valid && row < args.width) {
          const Index at = static_cast<Index>(first + t);
          args.o.data[batch * args.o.batch + at * args.o.token + head * args.o.head + row] = n * c;
          if (args.e.data != nullptr) {
            args.e.data[batch * args.e.batch + at * args.e.token + head * args.e.head + row] =
                residual[r];
          }
        }
      }
    }
    __syncthreads();  // the tile is read: the copies after the next may overwrite it
  }
}

struct ResidualArgs {
  int tokens, heads, width;
  TokenSource r, a, q, gate, d_o, e;
  const float* scale;
  const float* checkpoints;
  TokenView<float> de, dgate;
};

/// No gate: dS alone.
template <int D, bool kResidual>
__global__ void __launch_bounds__(RowShape<D>::kThreads)
    state_residuals_kernel(const ResidualArgs args) {
  using Shape = RowShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int R = Shape::kRows;
  constexpr int E = Shape::kChannels;
  constexpr int kRows = Shape::kBlockRows;
  __shared__ alignas(16) float r_tile[2][kResidual ? C * D : 4];
  __shared__ alignas(16) float a_tile[2][C * D];
  __shared__ alignas(16) float q_tile[2][C * D];
  __shared__ alignas(16) float y_tile[2][C * kRows];
  __shared__ float scale_tile[2][C];

  const int lane = blockIdx.x;
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first_row = blockIdx.y * kRows;
  const int g = threadIdx.x % G;
  const int group = threadIdx.x / G;
  const int tokens = args.tokens;

  const TokenRows r_rows = kResidual ? args.r.lane(batch, head) : TokenRows{};
  const TokenRows a_rows = args.a.lane(batch, head);
  const TokenRows q_rows = args.q.lane(batch, head);
  const TokenRows y_rows = args.d_o.lane(batch, head, first_row);
  const float* scale = nullptr;
  if (args.scale != nullptr) {
    scale = args.scale + static_cast<Index>(batch) * tokens * args.heads + head;
  }

  const auto copy = [&](int buffer, int first) {
    if constexpr (kResidual) {
      copy_tile<D, C, Shape::kThreads>(r_tile[buffer], r_rows, first, tokens);
    }
    copy_tile<D, C, Shape::kThreads>(a_tile[buffer], a_rows, first, tokens);
    copy_tile<D, C, Shape::kThreads>(q_tile[buffer], q_rows, first, tokens);
    copy_tile<kRows, C, Shape::kThreads>(y_tile[buffer], y_rows, first, tokens);
    if (scale != nullptr) copy_scalars<C>(scale_tile[buffer], scale, args.heads, first, tokens);
  };

  float ds[R][E] = {};
  const int last = (tokens - 1) / C * C;  // first token of the last tile
  copy(0, last);
  close_group();
  for (int first = last, buffer = 0; first >= 0; first -= C, buffer ^= 1) {
    if (first > 0) copy(buffer ^ 1, first - C);
    close_group();
    wait_for_groups<1>();
    __syncthreads();
#pragma unroll 4
    for (int back = 0; back < C; ++back) {
      const int t = C - 1 - back;
      const float c = scale != nullptr ? scale_tile[buffer][t] : 1.0F;
      float x[E];
      load_spread<D, G>(q_tile[buffer] + t * D, g, x);  // 3
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float dn = c * y_tile[buffer][t * kRows + group + Shape::kGroups * r];
#pragma unroll
        for (int e = 0; e < E; ++e) ds[r][e] = fmaf(dn, x[e], ds[r][e]);
      }
      load_spread<D, G>(a_tile[buffer] + t * D, g, x);  // 2
      float de[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        de[r] = group_sum<G>(partial_dot<E>(ds[r], x));
        const int row = first_row + group + Shape::kGroups * r;
        if (g == r && first + t < tokens && row < args.width) {
          const Index at = static_cast<Index>(first + t);
          args.de.data[batch * args.de.batch + at * args.de.token + head * args.de.head + row] =
              de[r];
        }
      }
      if constexpr (kResidual) {  // 1
        load_spread<D, G>(r_tile[buffer] + t * D, g, x);
#pragma unroll
        for (int r = 0; r < R; ++r) {
#pragma unroll
          for (int e = 0; e < E; ++e) ds[r][e] = fmaf(-de[r], x[e], ds[r][e]);
        }
      }
    }
    __syncthreads();
  }
}

/// With a gate: a tile is a segment, whose states are run through again from its checkpoint.
template <int D>
__global__ void __launch_bounds__(GatedRowShape<D>::kThreads)
    gated_residuals_kernel(const ResidualArgs args) {
  using Shape = GatedRowShape<D>;
  constexpr int C = Shape::kTokens;
  constexpr int G = Shape::kGroup;
  constexpr int E = Shape::kChannels;
  constexpr int kRows = Shape::kBlockRows;
  __shared__ alignas(16) float r_tile[2][C * D];
  __shared__ alignas(16) float a_tile[2][C * D];
  __shared__ alignas(16) float q_tile[2][C * D];
  __shared__ alignas(16) float y_tile[2][C * kRows];
  __shared__ alignas(16) float e_tile[2][C * kRows];
  __shared__ alignas(16) float gate_tile[2][C * kRows];
  __shared__ float scale_tile[2][C];

  const int lane = blockIdx.x;
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first_row = blockIdx.y * kRows;
  const int g = threadIdx.x % G;
  const int group = threadIdx.x / G;
  const int tokens = args.tokens;
  const Index segments = (tokens + C - 1) / C;

  const TokenRows r_rows = args.r.lane(batch, head);
  const TokenRows a_rows = args.a.lane(batch, head);
  const TokenRows q_rows = args.q.lane(batch, head);
  const TokenRows y_rows = args.d_o.lane(batch, head, first_row);
  const TokenRows e_rows = args.e.lane(batch, head, first_row);
  const TokenRows gate_rows = args.gate.lane(batch, head, first_row);
  const float* scale = nullptr;
  if (args.scale != nullptr) {
    scale = args.scale + static_cast<Index>(batch) * tokens * args.heads + head;
  }

  const auto copy = [&](int buffer, int first) {
    copy_tile<D, C, Shape::kThreads>(r_tile[buffer], r_rows, first, tokens);
    copy_tile<D, C, Shape::kThreads>(a_tile[buffer], a_rows, first, tokens);
    copy_tile<D, C, Shape::kThreads>(q_tile[buffer], q_rows, first, tokens);
    copy_tile<kRows, C, Shape::kThreads>(y_tile[buffer], y_rows, first, tokens);
    copy_tile<kRows, C, Shape::kThreads>(e_tile[buffer], e_rows, first, tokens);
    copy_tile<kRows, C, Shape::kThreads>(gate_tile[buffer], gate_rows, first, tokens);
    if (scale != nullptr) copy_scalars<C>(scale_tile[buffer], scale, args.heads, first, tokens);
  };
  const auto load_checkpoint = [&](int first, float(&state)[E]) {
    load_spread<D, G>(
        args.checkpoints + (lane * segments + first / C) * D * D + (first_row + group) * D, g,
        state);
  };

  float ds[E] = {};
  float ahead[E];  // the checkpoint of the next segment visited, asked for one segment early
  const int last = (tokens - 1) / C * C;
  copy(0, last);
  close_group();
  load_checkpoint(last, ahead);
  for (int first = last, buffer = 0; first >= 0; first -= C, buffer ^= 1) {
    float history[C][E];  // S before each token of the segment
#pragma unroll
    for (int e = 0; e < E; ++e) history[0][e] = ahead[e];
    if (first > 0) {
      copy(buffer ^ 1, first - C);
      load_checkpoint(first - C, ahead);
    }
    close_group();
    wait_for_groups<1>();
    __syncthreads();
#pragma unroll
    for (int t = 0; t + 1 < C; ++t) {
      float x[E];
      load_spread<D, G>(a_tile[buffer] + t * D, g, x);
      const float residual = e_tile[buffer][t * kRows + group];
      const float gate = gate_tile[buffer][t * kRows + group];
#pragma unroll
      for (int e = 0; e < E; ++e) history[t + 1][e] = fmaf(residual, x[e], gate * history[t][e]);
    }
#pragma unroll
    for (int back = 0; back < C; ++back) {
      const int t = C - 1 - back;
      const float c = scale != nullptr ? scale_tile[buffer][t] : 1.0F;
      const float dn = c * y_tile[buffer][t * kRows + group];
      float x[E];
      load_spread<D, G>(q_tile[buffer] + t * D, g, x);  // 3
#pragma unroll
      for (int e = 0; e < E; ++e) ds[e] = fmaf(dn, x[e], ds[e]);
      load_spread<D, G>(a_tile[buffer] + t * D, g, x);  // 2
      const float de = group_sum<G>(partial_dot<E>(ds, x));
      const float dgate = group_sum<G>(partial_dot<E>(ds, history[t]));
      const int row = first_row + group;
      if (g == 0 && first + t < tokens && row < args.width) {
        const Index at = static_cast<Index>(first + t);
        args.de.data[batch * args.de.batch + at * args.de.token + head * args.de.head + row] = de;
        args.dgate
            .data[batch * args.dgate.batch + at * args.dgate.token + head * args.dgate.head + row] =
            dgate;
      }
      load_spread<D, G>(r_tile[buffer] + t * D, g, x);  // 1
      const float gate = gate_tile[buffer][t * kRows + group];
#pragma unroll
      for (int e = 0; e < E; ++e) ds[e] = fmaf(-de, x[e], gate * ds[e]);
    }
    __syncthreads();
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
                                .o = args.o,
                                .e = args.e,
                                .checkpoints = args.checkpoints};
  with_head_size(scan.dims.d_h, [&](auto d) {
    constexpr int D = d;
    using Shape = RowShape<D>;
    const dim3 grid(static_cast<unsigned>(scan.dims.lanes()), D / Shape::kBlockRows);
    if (scan.gate.data != nullptr) {
      state_forward_kernel<D, true, true><<<grid, Shape::kThreads, 0, stream>>>(kernel_args);
    } else if (scan.r.data != nullptr) {
      state_forward_kernel<D, true, false><<<grid, Shape::kThreads, 0, stream>>>(kernel_args);
    } else {
      state_forward_kernel<D, false, false><<<grid, Shape::kThreads, 0, stream>>>(kernel_args);
    }
  });
  VLA_CUDA_LAUNCHED("state_forward_kernel");
}

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
                                 .de = args.de,
                                 .dgate = args.dgate};
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
