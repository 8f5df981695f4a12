// Softmax attention backward on tensor cores; the numbers are the steps of softmax.h and the roles
// those of softmax_backward.cu. A warp owns 16 rows, queries or keys; with own keys the scores are
// transposed, so that in both roles a thread's weights are the left operand of the next product.
#include <algorithm>

#include "core/cuda/check.h"
#include "mixers/softmax/softmax_cuda_launch.h"
#include "mixers/softmax/softmax_tiles.h"
#include "mixers/softmax/softmax_words.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

enum class Own { queries, keys };

struct Arguments {
  int tokens, heads;
  Rows<const float> q, k, v, o, d_o;
  Rows<float> dq, dk, dv;
  const float2* normalisation;
  float2* row_terms;
  float exponent_scale;  // log2(e) / sqrt(d): from q . k to the exponent of 2
  float score_scale;     // 1 / sqrt(d)
};

template <class Words_, int kD_, int kWarps, Own kOwn_>
struct BackwardTiles {
  using Words = Words_;
  using Tile = WordTile<Words, kD_>;
  static constexpr int kD = kD_;
  static constexpr bool kOwnQueries = kOwn_ == Own::queries;
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
  /// Plus three terms of each streamed query.
  static constexpr int kSharedWords = kTileWords + 3 * kStream;
};

/// The left operands of a warp's 16 rows.
template <class Tiles>
class OwnRows {
 public:
  using Tile = typename Tiles::Tile;

  __device__ OwnRows(const std::uint32_t* tile, int first_row, const FragmentThread& fragment)
      : tile_(tile), first_row_(first_row), fragment_(fragment) {
    if constexpr (Tiles::kHold) {
#pragma unroll
      for (int step = 0; step < Tile::kChannelSteps; ++step) {
        load_left<Tile>(tile, first_row, step, fragment, held_[step]);
      }
    }
  }

  /// products (16, 8 kTiles) = own rows times rows of channel words.
  template <int kTiles>
  __device__ void multiply(const std::uint32_t* channel_tile, float (&products)[kTiles][4]) const {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) products[n][i] = 0.0F;
    }
#pragma unroll
    for (int step = 0; step < Tile::kChannelSteps; ++step) {
      std::uint32_t a[4];
      if constexpr (Tiles::kHold) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = held_[step][i];
      } else {
        load_left<Tile>(tile_, first_row_, step, fragment_, a);
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const std::uint32_t* right = right_of_channels<Tile>(channel_tile, n, step, fragment_);
        Tiles::Words::multiply_add(products[n], a, right[0], right[4]);
      }
    }
  }

 private:
  const std::uint32_t* tile_;
  int first_row_;
  FragmentThread fragment_;
  std::uint32_t held_[Tiles::kHold ? Tile::kChannelSteps : 1][4];
};

/// The part of d_o . o of thread t of a row's four threads. d_o is rounded as in dp = d_o . v:
/// otherwise a row of dx would sum to the rounding error of D instead of nearly zero.
template <class Words, int kD>
__device__ inline float partial_along(const LaneRows<const float>& d_o,
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

/// Rows g and g + 8 of a warp's tile from `token` on, times `scale`.
template <int kD>
__device__ inline void write_rows(const float (&sums)[kD / kProductCols][4], float scale,
                                  const LaneRows<float>& rows, int token, int tokens,
                                  const FragmentThread& fragment) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = token + 8 * half + fragment.g;
    if (row >= tokens) continue;
#pragma unroll
    for (int n = 0; n < kD / kProductCols; ++n) {
      store_pair(rows, row, kProductCols * n + 2 * fragment.t, scale * sums[n][2 * half],
                 scale * sums[n][2 * half + 1]);
    }
  }
}

/// Block (head, batch element, tile).
template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads, Tiles::kBlocks)
    backward_mma_kernel(const Arguments args) {
  using Words = typename Tiles::Words;
  using Tile = typename Tiles::Tile;
  constexpr bool kOwnQueries = Tiles::kOwnQueries;
  constexpr int kD = Tiles::kD, kStream = Tiles::kStream;
  constexpr int kStreamTiles = kStream / kProductCols;
  constexpr int kChannelTiles = kD / kProductCols;
  auto* memory = reinterpret_cast<std::uint32_t*>(shared_memory());
  auto* shifts = reinterpret_cast<float*>(memory);  // of streamed queries
  float* scales = shifts + kStream;
  float* alongs = scales + kStream;
  std::uint32_t* own = memory + 3 * kStream;                                   // q or k
  std::uint32_t* own_other = own + Tile::channel_words(Tiles::kOwn);           // d_o or v
  std::uint32_t* stream = own + (Tiles::kHold ? 0 : Tiles::kOwnWords);         // k or q
  std::uint32_t* stream_other = stream + Tile::channel_words(kStream);         // v or d_o
  std::uint32_t* stream_tokens = stream_other + Tile::channel_words(kStream);  // k or q
  std::uint32_t* other_tokens = stream_tokens + Tile::token_words(kStream);    // d_o; own keys only

  const FragmentThread fragment;
  const int tokens = args.tokens;
  const BlockLane lane{tokens, args.heads};
  const LaneRows<const float> q = lane.rows(args.q), k = lane.rows(args.k), v = lane.rows(args.v),
                              d_o = lane.rows(args.d_o);
  // Late queries see many keys and early keys are seen by many queries; these tiles start first.
  const int tile = kOwnQueries ? BlockLane::tile_from_last() : BlockLane::tile_from_first();
  const int first = tile * Tiles::kOwn;
  const int begin = kOwnQueries ? 0 : first;
  const int end = kOwnQueries ? min(first + Tiles::kOwn, tokens) : tokens;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * kProductRows;
  const int warp_first = first + warp_row;

  using Channels = WordTarget<Words, kD, Layouts::channels>;
  using Both = WordTarget<Words, kD, Layouts::both>;
  load_words<Tiles::kOwn, Tiles::kThreads>(
      first, tokens, {kOwnQueries ? q : k, kOwnQueries ? d_o : v}, Channels{.channels = own},
      Channels{.channels = own_other});
  __syncthreads();
  const OwnRows<Tiles> rows(own, warp_row, fragment), other_rows(own_other, warp_row, fragment);

  // Terms of own queries g and g + 8.
  float shift[2], scale[2], along[2];
  if constexpr (kOwnQueries) {
    const LaneRows<const float> o = lane.rows(args.o);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = warp_first + 8 * half + fragment.g;
      const bool inside = token < tokens;
      const float2 normalisation =
          inside ? args.normalisation[lane.term(token)] : make_float2(0.0F, 0.0F);
      shift[half] = normalisation.x;
      scale[half] = normalisation.y;
      float sum = partial_along<Words, kD>(d_o, o, token, inside, fragment.t);
      sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
      sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 2);
      along[half] = sum;
      if (inside && fragment.t == 0) args.row_terms[lane.term(token)] = make_float2(sum, 0.0F);
    }
  }

  float sums[kChannelTiles][4];                          // dq or dk
  float value_sums[kOwnQueries ? 1 : kChannelTiles][4];  // dv
#pragma unroll
  for (int n = 0; n < kChannelTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[n][i] = 0.0F;
      if constexpr (!kOwnQueries) value_sums[n][i] = 0.0F;
    }
  }

  for (int base = begin; base < end; base += kStream) {
    __syncthreads();  // own rows, or the last streamed ones, are no longer needed there
    if constexpr (kOwnQueries) {
      load_words<kStream, Tiles::kThreads>(base, tokens, {k, v},
                                           Both{.channels = stream, .tokens = stream_tokens},
                                           Channels{.channels = stream_other});
    } else {
      load_words<kStream, Tiles::kThreads>(base, tokens, {q, d_o},
                                           Both{.channels = stream, .tokens = stream_tokens},
                                           Both{.channels = stream_other, .tokens = other_tokens});
      for (int i = threadIdx.x; i < kStream; i += Tiles::kThreads) {
        const bool inside = base + i < tokens;  // a query beyond the end has weight 0
        const Index term = lane.term(base + i);
        const float2 normalisation = inside ? args.normalisation[term] : make_float2(0.0F, 0.0F);
        shifts[i] = normalisation.x;
        scales[i] = normalisation.y;
        alongs[i] = inside ? args.row_terms[term].x : 0.0F;
      }
    }
    __syncthreads();
    // Nothing is visible to this warp; the condition is uniform in the warp.
    if (warp_first >= tokens) continue;
    if (kOwnQueries ? base >= warp_first + kProductRows : base + kStream <= warp_first) continue;

    float products[kStreamTiles][4], dp[kStreamTiles][4];
    rows.multiply(stream, products);        // 1
    other_rows.multiply(stream_other, dp);  // 3
#pragma unroll
    for (int n = 0; n < kStreamTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2;
        const int row = warp_first + 8 * half + fragment.g;
        const int col = kProductCols * n + 2 * fragment.t + i % 2;
        const bool visible = kOwnQueries ? base + col <= row : row <= base + col;
        const float query_shift = kOwnQueries ? shift[half] : shifts[col];
        const float query_scale = kOwnQueries ? scale[half] : scales[col];
        const float query_along = kOwnQueries ? along[half] : alongs[col];
        const float exponential =
            exp2_approximate(fmaf(products[n][i], args.exponent_scale, -query_shift));
        products[n][i] = visible ? exponential * query_scale : 0.0F;
        dp[n][i] = products[n][i] * (dp[n][i] - query_along);  // 2
      }
    }
    add_weighted_words<Words, kD>(dp, stream_tokens, fragment, sums);  // 1
    if constexpr (!kOwnQueries) {
      add_weighted_words<Words, kD>(products, other_tokens, fragment, value_sums);  // 3
    }
  }

  if constexpr (kOwnQueries) {
    write_rows<kD>(sums, args.score_scale, lane.rows(args.dq), warp_first, tokens, fragment);
  } else {
    write_rows<kD>(sums, args.score_scale, lane.rows(args.dk), warp_first, tokens, fragment);
    write_rows<kD>(value_sums, 1.0F, lane.rows(args.dv), warp_first, tokens, fragment);
  }
}

template <class Tiles>
void launch(cudaStream_t stream, const HeadDims& dims, const Arguments& arguments) {
  constexpr int kBytes = Tiles::kSharedWords * static_cast<int>(sizeof(std::uint32_t));
  static_assert(kBytes <= kSharedBytes);
  const dim3 grid = grid_of(dims, Tiles::kOwn);
  VLA_CUDA(cudaFuncSetAttribute(backward_mma_kernel<Tiles>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  backward_mma_kernel<Tiles><<<grid, Tiles::kThreads, kBytes, stream>>>(arguments);
  VLA_CUDA_LAUNCHED("backward_mma_kernel");
}

template <class Words, int kD, int kWarps>
void launch_roles(cudaStream_t stream, const HeadDims& dims, const Arguments& arguments) {
  // Queries first: the keys' kernel reads the terms of their rows.
  launch<BackwardTiles<Words, kD, kWarps, Own::queries>>(stream, dims, arguments);
  launch<BackwardTiles<Words, kD, kWarps, Own::keys>>(stream, dims, arguments);
}

template <class Words, int kD>
void choose(cudaStream_t stream, const Backward& args) {
  const Arguments arguments{.tokens = static_cast<int>(args.dims.tokens),
                            .heads = static_cast<int>(args.dims.heads),
                            .q = Rows(args.q),
                            .k = Rows(args.k),
                            .v = Rows(args.v),
                            .o = Rows(args.o),
                            .d_o = Rows(args.d_o),
                            .dq = Rows(args.dq),
                            .dk = Rows(args.dk),
                            .dv = Rows(args.dv),
                            .normalisation = args.normalisation,
                            .row_terms = args.row_terms,
                            .exponent_scale = exponent_scale(args.dims.d_h),
                            .score_scale = score_scale(args.dims.d_h)};
  if (takes_wide(args.tiling, args.dims, 4 * kProductRows)) {
    launch_roles<Words, kD, 4>(stream, args.dims, arguments);
  } else {
    launch_roles<Words, kD, 2>(stream, args.dims, arguments);
  }
}

template <class Words>
void choose_head_size(cudaStream_t stream, const Backward& args) {
  switch (args.dims.d_h) {
    case 16:
      return choose<Words, 16>(stream, args);
    case 32:
      return choose<Words, 32>(stream, args);
    case 64:
      return choose<Words, 64>(stream, args);
    default:  // 128
      return choose<Words, 128>(stream, args);
  }
}

}  // namespace

void backward_tensor_cores(cudaStream_t stream, Precision precision, const Backward& args) {
  if (precision == Precision::tf32) {
    choose_head_size<Tf32Words>(stream, args);
  } else {
    choose_head_size<Bf16Words>(stream, args);
  }
}

}  // namespace vla_bench::mixers::softmax::cuda
