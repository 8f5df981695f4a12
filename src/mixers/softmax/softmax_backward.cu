// Softmax attention backward in plain float32; the numbers are the steps of softmax.h. Short
// sequences go to softmax_backward_lane.cu.
//
// One kernel with two roles. With queries as its own rows, a thread block streams the keys up to
// its last query and writes dq; with keys as its own rows, it streams the queries from its first
// key on and writes dk and dv. Each role recomputes scores and dp: seven products of tiles where
// one pass would need five, but every gradient has one writer, so there are no atomics and the
// order of every sum is fixed.
#include "core/cuda/check.h"
#include "mixers/softmax/softmax_backward_fma.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

enum class Own { queries, keys };

template <class Tiles>
constexpr int shared_floats() {
  // Own and streamed rows of two matrices each, a tile of weights, three terms per streamed query.
  return 2 * (Tiles::kOwn + Tiles::kStream) * Tiles::kStride + Tiles::kWeights + 3 * Tiles::kStream;
}

/// A thread's part of x . y, of own row `row` of a tile with the row of a token.
template <class Tiles>
__device__ inline float partial_dot(const float* tile, int row, const LaneRows<const float>& other,
                                    int token, bool inside, int tx) {
  float sum = 0.0F;
#pragma unroll
  for (int m = 0; m < Tiles::kQuads; ++m) {
    const int channel = 4 * (tx + Tiles::kTx * m);
    const float4 x = quad(tile + row * Tiles::kStride + channel);
    const float4 y = load_quad(other, token, channel, inside);
    sum = add_dot(x, y, sum);
  }
  return sum;
}

/// Block (head, batch element, tile).
template <class Tiles, Own kOwn>
__global__ void __launch_bounds__(Tiles::kThreads, Tiles::kBlocks)
    backward_float32_kernel(const BackwardArguments args) {
  constexpr bool kOwnQueries = kOwn == Own::queries;
  constexpr int kRows = Tiles::kRows, kCols = Tiles::kCols, kQuads = Tiles::kQuads;
  float* own = shared_memory();                                    // q or k
  float* own_other = own + Tiles::kOwn * Tiles::kStride;           // d_o or v
  float* stream = own_other + Tiles::kOwn * Tiles::kStride;        // k or q
  float* stream_other = stream + Tiles::kStream * Tiles::kStride;  // v or d_o
  float* weights = stream_other + Tiles::kStream * Tiles::kStride;
  float* shifts = weights + Tiles::kWeights;  // of streamed queries
  float* scales = shifts + Tiles::kStream;
  float* alongs = scales + Tiles::kStream;

  const int tx = threadIdx.x % Tiles::kTx;
  const int ty = threadIdx.x / Tiles::kTx;
  const int tokens = args.tokens;
  const BlockLane lane{tokens, args.heads};
  const LaneRows<const float> q = lane.rows(args.q), k = lane.rows(args.k), v = lane.rows(args.v),
                              d_o = lane.rows(args.d_o);
  // Late queries see many keys and early keys are seen by many queries; these tiles start first.
  const int tile = kOwnQueries ? BlockLane::tile_from_last() : BlockLane::tile_from_first();
  const int first = tile * Tiles::kOwn;
  const int begin = kOwnQueries ? 0 : first;
  const int end = kOwnQueries ? min(first + Tiles::kOwn, tokens) : tokens;

  copy_rows<Tiles, Tiles::kOwn>(own, kOwnQueries ? q : k, first, tokens);
  copy_rows<Tiles, Tiles::kOwn>(own_other, kOwnQueries ? d_o : v, first, tokens);
  end_copies();

  QueryTerms terms[kRows];                                // own queries
  float rest[kRows];                                      // own queries: sum of the thread's dx
  float4 sums[kRows][kQuads], value_sums[kRows][kQuads];  // dq or dk; dv
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    rest[r] = 0.0F;
#pragma unroll
    for (int m = 0; m < kQuads; ++m) {
      sums[r][m] = value_sums[r][m] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
  }
  if constexpr (kOwnQueries) {
    const LaneRows<const float> o = lane.rows(args.o);
    copies_arrived<0>();
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = ty + Tiles::kTy * r;
      const bool inside = first + row < tokens;
      const float2 normalisation =
          inside ? args.normalisation[lane.term(first + row)] : make_float2(0.0F, 0.0F);
      terms[r].shift = normalisation.x;
      terms[r].scale = normalisation.y;
      terms[r].along =
          row_sum<Tiles>(partial_dot<Tiles>(own_other, row, o, first + row, inside, tx));
    }
  }

  for (int base = begin; base < end; base += Tiles::kStream) {
    __syncthreads();  // the last tile is no longer needed
    copy_rows<Tiles, Tiles::kStream>(stream, kOwnQueries ? k : q, base, tokens);
    copy_rows<Tiles, Tiles::kStream>(stream_other, kOwnQueries ? v : d_o, base, tokens);
    end_copies();
    if constexpr (!kOwnQueries) {
      for (int i = threadIdx.x; i < Tiles::kStream; i += Tiles::kThreads) {
        const bool inside = base + i < tokens;  // a query beyond the end has weight 0
        const Index term = lane.term(base + i);
        const float2 normalisation = inside ? args.normalisation[term] : make_float2(0.0F, 0.0F);
        shifts[i] = normalisation.x;
        scales[i] = normalisation.y;
        alongs[i] = inside ? args.row_terms[term].x : 0.0F;
      }
    }
    copies_arrived<0>();
    __syncthreads();

    float products[kRows][kCols], dp[kRows][kCols];
    multiply_rows<Tiles>(own, stream, tx, ty, products);        // 1
    multiply_rows<Tiles>(own_other, stream_other, tx, ty, dp);  // 3
#pragma unroll
    for (int c = 0; c < kCols; ++c) {
      const int col = tx + Tiles::kTx * c;
      QueryTerms query;
      if constexpr (!kOwnQueries) query = {shifts[col], scales[col], alongs[col]};
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int row = first + ty + Tiles::kTy * r;
        const bool visible = kOwnQueries ? base + col <= row : row <= base + col;
        differentiate(visible, kOwnQueries ? terms[r] : query, args.exponent_scale, products[r][c],
                      dp[r][c]);  // 2
        if constexpr (kOwnQueries) rest[r] += dp[r][c];
      }
    }
    // Only one warp writes and reads these rows of weights.
    store_weights<Tiles>(dp, tx, ty, weights);
    __syncwarp();
    add_weighted_rows<Tiles>(weights, stream, tx, ty, sums);  // 1
    if constexpr (!kOwnQueries) {
      __syncwarp();
      store_weights<Tiles>(products, tx, ty, weights);
      __syncwarp();
      add_weighted_rows<Tiles>(weights, stream_other, tx, ty, value_sums);  // 3
    }
  }

#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int token = first + ty + Tiles::kTy * r;
    if constexpr (kOwnQueries) rest[r] = row_sum<Tiles>(rest[r]);
    if (token >= tokens) continue;
    if constexpr (kOwnQueries) {
      const auto key = [&](int channel) { return load_quad(k, token, channel); };
      write_corrected<Tiles>(sums[r], args.score_scale, rest[r], key, lane.rows(args.dq), token,
                             tx);
      if (tx == 0) args.row_terms[lane.term(token)] = make_float2(terms[r].along, rest[r]);
    } else {
      const auto query = [&](int channel) { return load_quad(q, token, channel); };
      write_corrected<Tiles>(sums[r], args.score_scale, args.row_terms[lane.term(token)].y, query,
                             lane.rows(args.dk), token, tx);
      write_row<Tiles>(value_sums[r], lane.rows(args.dv), token, tx);
    }
  }
}

template <class Tiles, Own kOwn>
void launch_role(cudaStream_t stream, const HeadDims& dims, const BackwardArguments& arguments) {
  constexpr int kBytes = shared_floats<Tiles>() * static_cast<int>(sizeof(float));
  static_assert(kBytes <= kSharedBytes);
  const dim3 grid = grid_of(dims, Tiles::kOwn);
  VLA_CUDA(cudaFuncSetAttribute(backward_float32_kernel<Tiles, kOwn>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  backward_float32_kernel<Tiles, kOwn><<<grid, Tiles::kThreads, kBytes, stream>>>(arguments);
  VLA_CUDA_LAUNCHED("backward_float32_kernel");
}

template <class Wide, class Narrow>
void choose(cudaStream_t stream, const Backward& args) {
  static_assert(Narrow::kOwn == 16 && Narrow::kThreads == kWarpThreads);
  const BackwardArguments arguments(args);
  // Queries first: the keys' kernel reads the terms of their rows.
  if (takes_wide(args.tiling, args.dims, Wide::kOwn)) {
    launch_role<Wide, Own::queries>(stream, args.dims, arguments);
    launch_role<Wide, Own::keys>(stream, args.dims, arguments);
  } else {
    launch_role<Narrow, Own::queries>(stream, args.dims, arguments);
    launch_role<Narrow, Own::keys>(stream, args.dims, arguments);
  }
}

}  // namespace

void backward_float32(cudaStream_t stream, const Backward& args) {
  if (takes_whole_lane(args.tiling, args.dims)) return backward_whole_lane(stream, args);
  switch (args.dims.d_h) {
    case 8:
      return choose<FmaTiles<8, 2, 16, 4, 16>, FmaTiles<8, 2, 16, 1, 16>>(stream, args);
    case 16:
      return choose<FmaTiles<16, 4, 16, 4, 8>, FmaTiles<16, 4, 8, 2, 8>>(stream, args);
    case 32:
      return choose<FmaTiles<32, 8, 16, 4, 8>, FmaTiles<32, 8, 4, 4, 4>>(stream, args);
    case 64:
      return choose<FmaTiles<64, 8, 16, 4, 8>, FmaTiles<64, 8, 4, 4, 4>>(stream, args);
    default:  // 128
      return choose<FmaTiles<128, 8, 16, 4, 4>, FmaTiles<128, 8, 4, 4, 4>>(stream, args);
  }
}

}  // namespace vla_bench::mixers::softmax::cuda
