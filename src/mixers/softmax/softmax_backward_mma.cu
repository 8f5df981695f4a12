// Softmax attention backward on tensor cores; the numbers are the steps of softmax.h and the roles
// those of softmax_backward.cu. A warp owns 16 rows, queries or keys; with own keys the scores are
// transposed, so that in both roles a thread's weights are the left operand of the next product.
#include <algorithm>

#include "core/cuda/warp.h"
#include "mixers/softmax/softmax_words.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

template <class Words_, int kD_, int kWarps, bool kOwnQueries_>
struct BackwardTiles {
  using Words = Words_;
  using Tile = WordTile<Words, kD_>;
  static constexpr int kD = kD_;
  static constexpr bool kOwnQueries = kOwnQueries_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks = 256 / kThreads;  // leaves a thread all 255 registers
  static constexpr int kOwn = kProductRows * kWarps;
  static constexpr int kStream = 32;
  /// Whether a thread keeps its own rows in registers; rows of more than 64 words overflow them.
  static constexpr bool kHold = kD / Words::kPack <= 64;

  /// The streamed k or q is stored in both layouts, the streamed v as channel words, the streamed
  /// d_o in both.
  static constexpr int kStreamWords =
      2 * Tile::channel_words(kStream) + (kOwnQueries ? 1 : 2) * Tile::token_words(kStream);
  static constexpr int kOwnWords = 2 * Tile::channel_words(kOwn);
  /// Rows held in registers are loaded through the memory of the streamed ones.
  static constexpr int kTileWords =
      kHold ? std::max(kOwnWords, kStreamWords) : kOwnWords + kStreamWords;
  /// Plus the terms of each streamed query.
  static constexpr int kBytes = kTileWords * static_cast<int>(sizeof(std::uint32_t)) +
                                kStream * static_cast<int>(sizeof(QueryTerms));
};

/// The part of d_o . o of thread t of a row's four threads. d_o is rounded as in dp = d_o . v:
/// otherwise a row of dx would sum to the rounding error of D instead of nearly zero.
template <class Words, int kD>
__device__ inline float partial_delta(const LaneRows<const float>& d_o,
                                      const LaneRows<const float>& o, int token, bool inside,
                                      int t) {
  float sum = 0.0F;
#pragma unroll
  for (int channel = 0; channel < kD; channel += 16) {
    const float4 a = load_quad(d_o, token, channel + 4 * t, inside);
    const float4 b = load_quad(o, token, channel + 4 * t, inside);
    sum = fmaf(Words::rounded_value(a.x), b.x, sum);
    sum = fmaf(Words::rounded_value(a.y), b.y, sum);
    sum = fmaf(Words::rounded_value(a.z), b.z, sum);
    sum = fmaf(Words::rounded_value(a.w), b.w, sum);
  }
  return sum;
}

/// Block (head, batch element, tile).
template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads, Tiles::kBlocks)
    backward_mma_kernel(const Backward args) {
  using Words = typename Tiles::Words;
  using Tile = typename Tiles::Tile;
  constexpr bool kOwnQueries = Tiles::kOwnQueries;
  constexpr int kD = Tiles::kD, kStream = Tiles::kStream;
  constexpr int kStreamTiles = kStream / kProductCols;
  constexpr int kChannelTiles = kD / kProductCols;
  auto* stream_terms = reinterpret_cast<QueryTerms*>(shared_memory());
  auto* own = reinterpret_cast<std::uint32_t*>(stream_terms + kStream);        // q or k
  std::uint32_t* own_other = own + Tile::channel_words(Tiles::kOwn);           // d_o or v
  std::uint32_t* stream = own + (Tiles::kHold ? 0 : Tiles::kOwnWords);         // k or q
  std::uint32_t* stream_other = stream + Tile::channel_words(kStream);         // v or d_o
  std::uint32_t* stream_tokens = stream_other + Tile::channel_words(kStream);  // k or q
  std::uint32_t* other_tokens = stream_tokens + Tile::token_words(kStream);    // d_o; own keys only

  const FragmentThread fragment;
  const BlockLane lane(args.dims);
  const int tokens = lane.tokens;
  const LaneRows<const float> q = lane.rows(args.q), k = lane.rows(args.k), v = lane.rows(args.v),
                              d_o = lane.rows(args.d_o);
  const TileRange<Tiles::kOwn, kOwnQueries> range(tokens);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp_row = thread / kWarp * kProductRows;
  const int warp_first = range.first + warp_row;

  using Channels = WordTarget<Words, kD, Layouts::channels>;
  using Both = WordTarget<Words, kD, Layouts::both>;
  load_words<Tiles::kOwn, Tiles::kThreads>(
      range.first, tokens, {kOwnQueries ? q : k, kOwnQueries ? d_o : v}, Channels{.channels = own},
      Channels{.channels = own_other});
  __syncthreads();
  const OwnRows<Words, kD, 1, Tiles::kHold> rows(own, warp_row, fragment);
  const OwnRows<Words, kD, 1, Tiles::kHold> other_rows(own_other, warp_row, fragment);

  QueryTerms terms[2];  // of own queries g and g + 8
  if constexpr (kOwnQueries) {
    const LaneRows<const float> o = lane.rows(args.o);
    unrolled<2>([&](int half) {
      const int token = warp_first + 8 * half + fragment.g;
      const bool inside = token < tokens;
      const float delta = row_sum(partial_delta<Words, kD>(d_o, o, token, inside, fragment.t));
      terms[half] = query_terms(args, lane, token, delta);
      if (inside && fragment.t == 0) args.row_terms[lane.term(token)] = make_float2(delta, 0.0F);
    });
  }

  float sums[1][kChannelTiles][4] = {};                          // dq or dk
  float value_sums[1][kOwnQueries ? 1 : kChannelTiles][4] = {};  // dv
  for (int base = range.begin; base < range.end; base += kStream) {
    __syncthreads();  // own rows, or the last streamed ones, are no longer needed there
    if constexpr (kOwnQueries) {
      load_words<kStream, Tiles::kThreads>(base, tokens, {k, v},
                                           Both{.channels = stream, .tokens = stream_tokens},
                                           Channels{.channels = stream_other});
    } else {
      load_words<kStream, Tiles::kThreads>(base, tokens, {q, d_o},
                                           Both{.channels = stream, .tokens = stream_tokens},
                                           Both{.channels = stream_other, .tokens = other_tokens});
      static_assert(kStream <= Tiles::kThreads);
      if (thread < kStream) stream_terms[thread] = streamed_terms(args, lane, base + thread);
    }
    __syncthreads();
    // Nothing is visible to this warp; the condition is uniform in the warp.
    if (warp_first >= tokens) continue;
    if (kOwnQueries ? base >= warp_first + kProductRows : base + kStream <= warp_first) continue;

    float products[1][kStreamTiles][4], dp[1][kStreamTiles][4];
    rows.multiply(stream, products);        // 1
    other_rows.multiply(stream_other, dp);  // 3
    unrolled<kStreamTiles, 4>([&](int n, int i) {
      const int row = warp_first + 8 * (i / 2) + fragment.g;
      const int col = kProductCols * n + 2 * fragment.t + i % 2;
      const bool visible = kOwnQueries ? base + col <= row : row <= base + col;
      const QueryTerms query = kOwnQueries ? terms[i / 2] : stream_terms[col];
      float &weight = products[0][n][i], &dx = dp[0][n][i];
      const float exponential = exp2_approximate(fmaf(weight, args.exponent_scale, -query.shift));
      weight = visible ? exponential * query.scale : 0.0F;
      dx = weight * (dx - query.delta);  // 2
    });
    add_weighted_words<Words, kD>(dp, stream_tokens, fragment, sums);  // 1
    if constexpr (!kOwnQueries) {
      add_weighted_words<Words, kD>(products, other_tokens, fragment, value_sums);  // 3
    }
  }

  const LaneRows<float> gradient = lane.rows(kOwnQueries ? args.dq : args.dk);
  unrolled<2>([&](int half) {
    const int token = warp_first + 8 * half + fragment.g;
    if (token >= tokens) return;
    write_row(sums[0], half, args.score_scale, gradient, token, fragment);
    if constexpr (!kOwnQueries) {
      write_row(value_sums[0], half, 1.0F, lane.rows(args.dv), token, fragment);
    }
  });
}

template <class Tiles>
void launch_mma(cudaStream_t stream, const Backward& args) {
  launch<Tiles, Tiles::kBytes>(stream, "backward_mma_kernel", backward_mma_kernel<Tiles>, args);
}

template <class Words, int kD, int kWarps>
void launch_roles(cudaStream_t stream, const Backward& args) {
  // Queries first: the keys' kernel reads the terms of their rows.
  launch_mma<BackwardTiles<Words, kD, kWarps, true>>(stream, args);
  launch_mma<BackwardTiles<Words, kD, kWarps, false>>(stream, args);
}

}  // namespace

void backward_tensor_cores(cudaStream_t stream, Precision precision, const Backward& args) {
  with_words(precision, args.dims.d_h, [&]<class Words, int kD>() {
    if (takes_wide(args.tiling, args.dims, 4 * kProductRows)) {
      launch_roles<Words, kD, 4>(stream, args);
    } else {
      launch_roles<Words, kD, 2>(stream, args);
    }
  });
}

}  // namespace vla_bench::mixers::softmax::cuda
