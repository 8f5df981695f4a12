// mesa_solve.h: the kernels of one head size.
#include "core/cuda/check.h"
#include "mixers/mesa/mesa.h"
#include "mixers/mesa/mesa_solve.h"
#include "mixers/recurrence/chunk_products.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <int D>
inline constexpr int kSolveTokens = solve_tokens(D);

/// A block's chunk: blockIdx (chunk, lane).
template <int D>
struct Chunk {
  static constexpr int C = kSolveTokens<D>;

  __device__ explicit Chunk(const ChunkRows& rows)
      : batch(static_cast<int>(blockIdx.y) / rows.heads),
        head(static_cast<int>(blockIdx.y) % rows.heads),
        first(static_cast<int>(blockIdx.x) * C),
        count(min(C, rows.tokens - first)),
        index(static_cast<Index>(blockIdx.y) * rows.chunks + blockIdx.x) {}

  /// Channel i of the chunk's token t; 0 where there is none.
  __device__ float read(const TokenView<const float>& view, int channels, int t, int i) const {
    if (t >= count || i >= channels) return 0.0F;
    return view.lane(batch, head)[static_cast<Index>(first + t) * view.token + i];
  }
  __device__ float gamma(const ChunkRows& rows, int t) const {
    return t < count ? read(rows.gamma, 1, t, 0) : 1.0F;
  }

  int batch, head, first, count;
  Index index;
};

constexpr int kSumThreads = 256;  // 16 x 16, each with D / 16 x D / 16 elements of H

/// h <- sum over the chunk's tokens of Gamma(t, C) k_t a_t^T.
template <int D>
__global__ void __launch_bounds__(kSumThreads) chunk_sums_kernel(const ChunkRows rows) {
  constexpr int C = kSolveTokens<D>;
  constexpr int R = D / 16;
  __shared__ float k[C][D], a[C][D], gamma[C], behind[C];
  const Chunk<D> chunk(rows);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < C) gamma[thread] = chunk.gamma(rows, thread);
  for (int i = thread; i < C * D; i += kSumThreads) {
    k[i / D][i % D] = chunk.read(rows.k, rows.channels, i / D, i % D);
    a[i / D][i % D] = chunk.read(rows.a, rows.channels, i / D, i % D);
  }
  __syncthreads();
  if (thread < C) {
    float product = 1.0F;
    for (int t = C - 1; t > thread; --t) product *= gamma[t];
    behind[thread] = product;
    if (thread == 0) rows.decay[chunk.index] = product * gamma[0];
  }
  __syncthreads();
  const int row = thread / 16 * R, column = thread % 16 * R;
  float sum[R][R] = {};
#pragma unroll 4
  for (int t = 0; t < C; ++t) {
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const float left = k[t][row + i] * behind[t];
#pragma unroll
      for (int j = 0; j < R; ++j) sum[i][j] = fmaf(left, a[t][column + j], sum[i][j]);
    }
  }
  float* const h = rows.h + chunk.index * D * D;
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < R; ++j) h[(row + i) * D + column + j] = sum[i][j];
  }
}

constexpr int kEntryThreads = 256;
constexpr int kEntriesAhead = 8;  // chunks that are loaded before they are added up

/// In place: from what each chunk adds to H before it. Blocks (elements, lanes).
template <int D>
__global__ void __launch_bounds__(kEntryThreads) chunk_entries_kernel(const ChunkRows rows) {
  const Index first = static_cast<Index>(blockIdx.y) * rows.chunks;
  float* const h = rows.h + first * D * D + blockIdx.x * kEntryThreads + threadIdx.x;
  float carry = 0.0F;
  for (int chunk = 0; chunk < rows.chunks; chunk += kEntriesAhead) {
    float own[kEntriesAhead], decay[kEntriesAhead];
#pragma unroll
    for (int i = 0; i < kEntriesAhead; ++i) {
      const Index at = min(chunk + i, rows.chunks - 1);
      own[i] = h[at * D * D];
      decay[i] = rows.decay[first + at];
    }
#pragma unroll
    for (int i = 0; i < kEntriesAhead; ++i) {
      if (chunk + i >= rows.chunks) continue;
      h[static_cast<Index>(chunk + i) * D * D] = carry;
      carry = fmaf(decay[i], carry, own[i]);
    }
  }
}

/// Rows are 8 modulo 32 banks long: a quarter of a warp's 64-bit reads then meets no bank twice.
template <int D>
struct SolveTiles {
  static constexpr int C = kSolveTokens<D>;
  float k[C][D + 8];
  float a[D][C + 8];  // transposed
  float h[D][D + 8];
  float mask[C][C + 8];  // Gamma(s, t) at (t, s), 0 for s > t
  float before[C];       // Gamma(0, t)
  float gamma[C];
  float lambda[D];
};

/// One number for Ridge of mesa.h.
struct OneNumber {
  using Scalar = float;
  struct Channels {
    float value;
    __device__ float& operator[](int) { return value; }
    __device__ const float& operator[](int) const { return value; }
  };
  template <class F>
  __device__ void each(const F& f) const {
    f(0);
  }
  __device__ float exp(float x) const { return expf(x); }
  __device__ float log1p(float x) const { return log1pf(x); }
};

template <int D>
__device__ inline void load_tiles(const SolveArgs& args, const Chunk<D>& chunk,
                                  SolveTiles<D>& tiles) {
  constexpr int C = kSolveTokens<D>;
  const ChunkRows& rows = args.rows;
  const int thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  if (thread < C) tiles.gamma[thread] = chunk.gamma(rows, thread);
  for (int i = thread; i < C * D; i += threads) {
    tiles.k[i / D][i % D] = chunk.read(rows.k, rows.channels, i / D, i % D);
    tiles.a[i % D][i / D] = chunk.read(rows.a, rows.channels, i / D, i % D);
  }
  const float* h = rows.h + chunk.index * D * D;
  for (int i = thread; i < D * D; i += threads) tiles.h[i / D][i % D] = h[i];
  for (int i = thread; i < D; i += threads) {
    OneNumber::Channels l{i < rows.channels ? args.ridge[chunk.head * rows.channels + i] : 1.0F};
    tiles.lambda[i] = Ridge<OneNumber>(OneNumber(), l, args.as_given).lambda[0];
  }
  __syncthreads();
  float product = 1.0F;
  for (int t = 0; thread <= C && t < C; ++t) {  // thread C: Gamma(0, t)
    if (thread < C) {
      product = t < thread ? 0.0F : t == thread ? 1.0F : product * tiles.gamma[t];
      tiles.mask[t][thread] = product;
    } else {
      product *= tiles.gamma[t];
      tiles.before[t] = product;
    }
  }
  __syncthreads();
}

/// A warp's 16 tokens, N tiles of 8 channels as accumulators of a product: thread (g, t) holds
/// channels 8 n + 2 t, 8 n + 2 t + 1 of tokens g and g + 8.
template <int D>
using Accumulators = float[D / 8][4];

__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(~0U, x, 1);
  return x + __shfl_xor_sync(~0U, x, 2);
}
/// The sums over channels of x * y of tokens g and g + 8.
template <int N>
__device__ inline float2 dots(const float (&x)[N][4], const float (&y)[N][4]) {
  float2 sum = {0.0F, 0.0F};
#pragma unroll
  for (int n = 0; n < N; ++n) {
    sum.x = fmaf(x[n][0], y[n][0], fmaf(x[n][1], y[n][1], sum.x));
    sum.y = fmaf(x[n][2], y[n][2], fmaf(x[n][3], y[n][3], sum.y));
  }
  return {quad_sum(sum.x), quad_sum(sum.y)};
}

template <Grade kGrade>
__device__ inline Left<kGrade> as_left(const float (&c)[4]) {
  return left<kGrade>(c[0], c[2], c[1], c[3]);  // inner index 2 t, then 2 t + 1
}
template <Grade kGrade>
__device__ inline Right<kGrade> as_right(const float* pair) {
  const float2 b = *reinterpret_cast<const float2*>(pair);
  return right<kGrade>(b.x, b.y);
}

/// w = (H_t + diag(lambda)) p of the warp's tokens.
template <Grade kGrade, int D>
__device__ inline void apply(const SolveTiles<D>& tiles, const Accumulators<D>& p,
                             Accumulators<D>& w) {
  constexpr int N = D / 8;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = static_cast<int>(threadIdx.x) % 32 / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const int row = 16 * warp + g;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) w[n][e] = 0.0F;
  }
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const Left<kGrade> of_p = as_left<kGrade>(p[k]);
#pragma unroll
    for (int n = 0; n < N; ++n) {  // H is symmetric
      multiply_add<kGrade>(w[n], of_p, as_right<kGrade>(&tiles.h[8 * n + g][8 * k + 2 * t]));
    }
  }
  const float upper = tiles.before[row], lower = tiles.before[row + 8];
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) w[n][e] *= e < 2 ? upper : lower;
  }
#pragma unroll 1
  for (int s = 0; s < 16 * (warp + 1); s += 16) {
    float along[2][4] = {};
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const Left<kGrade> of_p = as_left<kGrade>(p[k]);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        multiply_add<kGrade>(along[j], of_p,
                             as_right<kGrade>(&tiles.k[s + 8 * j + g][8 * k + 2 * t]));
      }
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int column = s + 8 * j + 2 * t;
      along[j][0] *= tiles.mask[row][column];
      along[j][1] *= tiles.mask[row][column + 1];
      along[j][2] *= tiles.mask[row + 8][column];
      along[j][3] *= tiles.mask[row + 8][column + 1];
      const Left<kGrade> weights = as_left<kGrade>(along[j]);
#pragma unroll
      for (int n = 0; n < N; ++n) {
        multiply_add<kGrade>(w[n], weights, as_right<kGrade>(&tiles.a[8 * n + g][column]));
      }
    }
  }
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      w[n][e] = fmaf(tiles.lambda[8 * n + 2 * t + e % 2], p[n][e], w[n][e]);
    }
  }
}

/// Residuals at which a token is done, of its right-hand side, squared.
template <Grade kGrade>
inline constexpr float kDone = kGrade == Grade::float32 ? 1e-14F : 1e-8F;

template <Grade kGrade, int D>
__global__ void __launch_bounds__(2 * kSolveTokens<D>) solve_kernel(const SolveArgs args) {
  constexpr int N = D / 8;
  extern __shared__ float4 memory[];
  SolveTiles<D>& tiles = *reinterpret_cast<SolveTiles<D>*>(memory);
  const Chunk<D> chunk(args.rows);
  load_tiles(args, chunk, tiles);
  const int g = static_cast<int>(threadIdx.x) % 32 / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const int row = static_cast<int>(threadIdx.x) / 32 * 16 + g;

  Accumulators<D> x = {}, residual, p, w;
  float2 largest = {0.0F, 0.0F};
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float b =
          chunk.read(args.rhs, args.rows.channels, row + e / 2 * 8, 8 * n + 2 * t + e % 2);
      residual[n][e] = b;
      float& of_row = e < 2 ? largest.x : largest.y;
      of_row = fmaxf(of_row, fabsf(b));
    }
  }
  // Right-hand sides of any size: squares of small ones would leave the range of float.
  for (int offset = 1; offset < 4; offset *= 2) {
    largest.x = fmaxf(largest.x, __shfl_xor_sync(~0U, largest.x, offset));
    largest.y = fmaxf(largest.y, __shfl_xor_sync(~0U, largest.y, offset));
  }
  constexpr float kLeast = 1e-37F;
  const float2 scale = {largest.x < kLeast ? 0.0F : 1.0F / largest.x,
                        largest.y < kLeast ? 0.0F : 1.0F / largest.y};
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      residual[n][e] *= e < 2 ? scale.x : scale.y;
      p[n][e] = residual[n][e];
    }
  }
  float2 squares = dots(residual, residual);
  const float2 done = {kDone<kGrade> * squares.x, kDone<kGrade> * squares.y};
#pragma unroll 1
  for (int step = 0; step < 2 * D; ++step) {
    const bool goes_x = !(squares.x <= done.x), goes_y = !(squares.y <= done.y);  // NaN goes on
    if (__any_sync(~0U, goes_x || goes_y) == 0) break;
    apply<kGrade, D>(tiles, p, w);
    const float2 curvature = dots(p, w);
    const float2 length = {goes_x ? squares.x / curvature.x : 0.0F,
                           goes_y ? squares.y / curvature.y : 0.0F};
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float by = e < 2 ? length.x : length.y;
        x[n][e] = fmaf(by, p[n][e], x[n][e]);
        residual[n][e] = fmaf(-by, w[n][e], residual[n][e]);
      }
    }
    const float2 next = dots(residual, residual);
    const float2 along = {goes_x ? next.x / squares.x : 0.0F, goes_y ? next.y / squares.y : 0.0F};
    squares = next;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        p[n][e] = fmaf(e < 2 ? along.x : along.y, p[n][e], residual[n][e]);
      }
    }
  }
  float* const lane = args.x.lane(chunk.batch, chunk.head);
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int token = row + e / 2 * 8, channel = 8 * n + 2 * t + e % 2;
      if (token >= chunk.count || channel >= args.rows.channels) continue;
      lane[static_cast<Index>(chunk.first + token) * args.x.token + channel] =
          args.factor * (e < 2 ? largest.x : largest.y) * x[n][e];
    }
  }
}

dim3 chunk_grid(const HeadDims& dims) {
  return {static_cast<unsigned>(solve_chunks(dims)), static_cast<unsigned>(dims.lanes())};
}

}  // namespace

template <int D>
void find_entries(cudaStream_t stream, const HeadDims& dims, const ChunkRows& rows) {
  chunk_sums_kernel<D><<<chunk_grid(dims), kSumThreads, 0, stream>>>(rows);
  VLA_CUDA_LAUNCHED("chunk_sums_kernel");
  const dim3 grid(D * D / kEntryThreads, static_cast<unsigned>(dims.lanes()));
  chunk_entries_kernel<D><<<grid, kEntryThreads, 0, stream>>>(rows);
  VLA_CUDA_LAUNCHED("chunk_entries_kernel");
}

template <int D>
void solve(cudaStream_t stream, Grade grade, const HeadDims& dims, const SolveArgs& args) {
  constexpr int kBytes = sizeof(SolveTiles<D>);
  const auto kernel =
      grade == Grade::float32 ? solve_kernel<Grade::float32, D> : solve_kernel<Grade::tf32, D>;
  VLA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  kernel<<<chunk_grid(dims), 2 * kSolveTokens<D>, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("solve_kernel");
}
#define VLA_INSTANTIATE(d)                                                        \
  template void find_entries<d>(cudaStream_t, const HeadDims&, const ChunkRows&); \
  template void solve<d>(cudaStream_t, Grade, const HeadDims&, const SolveArgs&);
VLA_FOR_HEAD_SIZES(VLA_INSTANTIATE)
#undef VLA_INSTANTIATE

}  // namespace vla_bench::mixers::cuda
