// Softmax attention backward in plain float32; the numbers are the steps of softmax.h. Short
// sequences go to softmax_backward_lane.cu.
//
// One kernel with two roles. With queries as its own rows, a thread block streams the keys up to
// its last query and writes dq; with keys as its own rows, it streams the queries from its first
// key on and writes dk and dv. Each role recomputes scores and dp: seven products of tiles where
// one pass would need five, but every gradient has one writer, so there are no atomics and the
// order of every sum is fixed.
#include "mixers/softmax/softmax_backward_fma.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

template <class Tiles>
constexpr int backward_bytes() {
  // Own and streamed rows of two matrices each, a tile of weights, the terms of streamed queries.
  return (2 * (Tiles::kOwn + Tiles::kStream) * Tiles::kStride + Tiles::kWeights) *
             static_cast<int>(sizeof(float)) +
         Tiles::kStream * static_cast<int>(sizeof(QueryTerms));
}

/// A thread's part of x . y, of own row `row` of a tile with the row of a token.
template <class Tiles>
__device__ inline float partial_dot(const float* tile, int row, const LaneRows<const float>& other,
                                    int token, bool inside, int tx) {
  float sum = 0.0F;
  unrolled<Tiles::kQuads>([&](int m) {
    const int channel = 4 * (tx + Tiles::kTx * m);
    const float4 x = quad(tile + row * Tiles::kStride + channel);
    const float4 y = load_quad(other, token, channel, inside);
    sum = add_dot(x, y, sum);
  });
  return sum;
}

/// Block (head, batch element, tile).
template <class Tiles, bool kOwnQueries>
__global__ void __launch_bounds__(Tiles::kThreads, Tiles::kBlocks)
    backward_float32_kernel(const Backward args) {
  constexpr int kRows = Tiles::kRows, kCols = Tiles::kCols, kQuads = Tiles::kQuads;
  float* own = shared_memory();                                    // q or k
  float* own_other = own + Tiles::kOwn * Tiles::kStride;           // d_o or v
  float* stream = own_other + Tiles::kOwn * Tiles::kStride;        // k or q
  float* stream_other = stream + Tiles::kStream * Tiles::kStride;  // v or d_o
  float* weights = stream_other + Tiles::kStream * Tiles::kStride;
  auto* stream_terms = reinterpret_cast<QueryTerms*>(weights + Tiles::kWeights);

  const int thread = static_cast<int>(threadIdx.x);
  const int tx = thread % Tiles::kTx, ty = thread / Tiles::kTx;
  const BlockLane lane(args.dims);
  const int tokens = lane.tokens;
  const LaneRows<const float> q = lane.rows(args.q), k = lane.rows(args.k), v = lane.rows(args.v),
                              d_o = lane.rows(args.d_o);
  const TileRange<Tiles::kOwn, kOwnQueries> range(tokens);
  const int first = range.first;

  copy_rows<Tiles, Tiles::kOwn>(own, kOwnQueries ? q : k, first, tokens);
  copy_rows<Tiles, Tiles::kOwn>(own_other, kOwnQueries ? d_o : v, first, tokens);
  close_group();

  QueryTerms terms[kRows];                                          // own queries
  float rest[kRows] = {};                                           // sum of the thread's own dx
  float4 sums[kRows][kQuads] = {}, value_sums[kRows][kQuads] = {};  // dq or dk; dv
  if constexpr (kOwnQueries) {
    const LaneRows<const float> o = lane.rows(args.o);
    wait_for_groups<0>();
    __syncthreads();
    unrolled<kRows>([&](int r) {
      const int row = ty + Tiles::kTy * r;
      const float part =
          partial_dot<Tiles>(own_other, row, o, first + row, first + row < tokens, tx);
      terms[r] = query_terms(args, lane, first + row, row_sum<Tiles>(part));
    });
  }

  for (int base = range.begin; base < range.end; base += Tiles::kStream) {
    __syncthreads();  // the last tile is no longer needed
    copy_rows<Tiles, Tiles::kStream>(stream, kOwnQueries ? k : q, base, tokens);
    copy_rows<Tiles, Tiles::kStream>(stream_other, kOwnQueries ? v : d_o, base, tokens);
    close_group();
    if constexpr (!kOwnQueries) {
      static_assert(Tiles::kStream <= Tiles::kThreads);
      if (thread < Tiles::kStream) {
        stream_terms[thread] = streamed_terms(args, lane, base + thread);
      }
    }
    wait_for_groups<0>();
    __syncthreads();

    float products[kRows][kCols], dp[kRows][kCols];
    multiply_rows<Tiles>(own, stream, tx, ty, products);        // 1
    multiply_rows<Tiles>(own_other, stream_other, tx, ty, dp);  // 3
    unrolled<kCols>([&](int c) {
      const int col = tx + Tiles::kTx * c;
      QueryTerms query;
      if constexpr (!kOwnQueries) query = stream_terms[col];
      unrolled<kRows>([&](int r) {
        const int row = first + ty + Tiles::kTy * r;
        const bool visible = kOwnQueries ? base + col <= row : row <= base + col;
        differentiate(visible, kOwnQueries ? terms[r] : query, args.exponent_scale, products[r][c],
                      dp[r][c]);  // 2
        if constexpr (kOwnQueries) rest[r] += dp[r][c];
      });
    });
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

  unrolled<kRows>([&](int r) {
    const int token = first + ty + Tiles::kTy * r;
    if constexpr (kOwnQueries) rest[r] = row_sum<Tiles>(rest[r]);
    if (token >= tokens) return;
    if constexpr (kOwnQueries) {
      const auto key = [&](int channel) { return load_quad(k, token, channel); };
      write_corrected<Tiles>(sums[r], args.score_scale, rest[r], key, lane.rows(args.dq), token,
                             tx);
      if (tx == 0) args.row_terms[lane.term(token)] = make_float2(terms[r].delta, rest[r]);
    } else {
      const auto query = [&](int channel) { return load_quad(q, token, channel); };
      write_corrected<Tiles>(sums[r], args.score_scale, args.row_terms[lane.term(token)].y, query,
                             lane.rows(args.dk), token, tx);
      write_row<Tiles>(value_sums[r], lane.rows(args.dv), token, tx);
    }
  });
}

template <class Tiles>
void launch_roles(cudaStream_t stream, const Backward& args) {
  constexpr int kBytes = backward_bytes<Tiles>();
  const char* name = "backward_float32_kernel";
  // Queries first: the keys' kernel reads the terms of their rows.
  launch<Tiles, kBytes>(stream, name, backward_float32_kernel<Tiles, true>, args);
  launch<Tiles, kBytes>(stream, name, backward_float32_kernel<Tiles, false>, args);
}

template <class Wide, class Narrow>
void choose(cudaStream_t stream, const Backward& args) {
  static_assert(Narrow::kOwn == 16 && Narrow::kThreads == kWarp);
  if (takes_wide(args.tiling, args.dims, Wide::kOwn)) {
    launch_roles<Wide>(stream, args);
  } else {
    launch_roles<Narrow>(stream, args);
  }
}

}  // namespace

void backward_float32(cudaStream_t stream, const Backward& args) {
  switch (args.dims.d_h) {
    case 8:
      return choose<FmaTiles<8, 2, 16, 4, 16>, FmaTiles<8, 2, 16, 1, 16>>(stream, args);
    case 16:
      return choose<FmaTiles<16, 4, 16, 4, 8>, FmaTiles<16, 4, 8, 2, 8>>(stream, args);
    case 32:
      return choose<FmaTiles<32, 8, 16, 4, 8>, FmaTiles<32, 8, 4, 4, 4>>(stream, args);
    case 64:
      return choose<FmaTiles<64, 8, 16, 4, 8>, FmaTiles<64, 8, 4, 4, 4>>(stream, args);
    case 128:
      return choose<FmaTiles<128, 8, 16, 4, 4>, FmaTiles<128, 8, 4, 4, 4>>(stream, args);
    default:
      return launch_roles<LargestTiles>(stream, args);
  }
}

}  // namespace vla_bench::mixers::softmax::cuda
