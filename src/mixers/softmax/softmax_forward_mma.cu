// Softmax attention forward on tensor cores; the numbers are the steps of softmax.h.
#include <algorithm>
#include <cfloat>

#include "core/cuda/check.h"
#include "mixers/softmax/softmax_cuda_launch.h"
#include "mixers/softmax/softmax_tiles.h"
#include "mixers/softmax/softmax_words.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

struct Arguments {
  int tokens, heads;
  Rows<const float> q, k, v;
  Rows<float> o;
  float2* normalisation;
  float exponent_scale;  // log2(e) / sqrt(d): from q . k to the exponent of 2
};

/// A warp owns kRowTiles tiles of 16 queries, so that each word of keys and values is read once for
/// all of them.
template <class Words_, int kD_, int kWarps, int kRowTiles_, int kStream_>
struct ForwardTiles {
  using Words = Words_;
  using Tile = WordTile<Words, kD_>;
  static constexpr int kD = kD_, kRowTiles = kRowTiles_, kStream = kStream_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks = 256 / kThreads;  // leaves a thread all 255 registers
  static constexpr int kWarpRows = kProductRows * kRowTiles;
  static constexpr int kOwn = kWarps * kWarpRows;
  /// Keys and values; before them, the queries.
  static constexpr int kSharedWords = std::max(
      Tile::channel_words(kOwn), Tile::channel_words(kStream) + Tile::token_words(kStream));
};

/// A thread's online softmax of rows g and g + 8 of each row tile.
template <class Tiles>
struct Running {
  static constexpr int kKeyTiles = Tiles::kStream / kProductCols;
  static constexpr int kChannelTiles = Tiles::kD / kProductCols;

  float shift[Tiles::kRowTiles][2];                // of the exponent: the largest so far
  float total[Tiles::kRowTiles][2];                // sum of the thread's own weights on that scale
  float sums[Tiles::kRowTiles][kChannelTiles][4];  // unnormalised outputs on that scale

  __device__ Running() {
#pragma unroll
    for (int m = 0; m < Tiles::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        shift[m][half] = -FLT_MAX;  // finite, so that differences are numbers
        total[m][half] = 0.0F;
      }
#pragma unroll
      for (int n = 0; n < kChannelTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][n][i] = 0.0F;
      }
    }
  }

  /// Step 2 up to the normalisation: `products` become weights on the scale of the new shift.
  /// `diagonal` is the first query less the first key; without kMasked every key is visible.
  template <bool kMasked>
  __device__ void take_in(float (&products)[Tiles::kRowTiles][kKeyTiles][4], int diagonal,
                          const FragmentThread& fragment, float exponent_scale) {
#pragma unroll
    for (int m = 0; m < Tiles::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // Of the keys 8 n + i of this thread.
        const int visible = diagonal + kProductRows * m + 8 * half + fragment.g - 2 * fragment.t;
        float largest = -FLT_MAX;
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if (!kMasked || kProductCols * n + i <= visible) {
              largest = fmaxf(largest, products[m][n][2 * half + i]);
            }
          }
        }
        // The four threads of a row.
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFU, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFU, largest, 2));
        const float now = fmaxf(shift[m][half], largest * exponent_scale);
        const float rescale = exp2_approximate(shift[m][half] - now);
        shift[m][half] = now;
        float sum = 0.0F;
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& product = products[m][n][2 * half + i];
            const float weight = exp2_approximate(fmaf(product, exponent_scale, -now));
            product = !kMasked || kProductCols * n + i <= visible ? weight : 0.0F;
            sum += product;
          }
        }
        total[m][half] = fmaf(total[m][half], rescale, sum);
#pragma unroll
        for (int n = 0; n < kChannelTiles; ++n) {
          sums[m][n][2 * half] *= rescale;
          sums[m][n][2 * half + 1] *= rescale;
        }
      }
    }
  }
};

/// Block (head, batch element, tile): kOwn queries against the keys up to the last of them.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads, Tiles::kBlocks)
    forward_mma_kernel(const Arguments args) {
  using Words = typename Tiles::Words;
  using Tile = typename Tiles::Tile;
  constexpr int kD = Tiles::kD, kRowTiles = Tiles::kRowTiles;
  constexpr int kSteps = Tile::kChannelSteps;
  constexpr int kKeyTiles = Tiles::kStream / kProductCols;
  constexpr int kChannelTiles = kD / kProductCols;
  auto* keys = reinterpret_cast<std::uint32_t*>(shared_memory());
  std::uint32_t* values = keys + Tile::channel_words(Tiles::kStream);
  std::uint32_t* queries = keys;

  const FragmentThread fragment;
  const int tokens = args.tokens;
  const BlockLane lane{tokens, args.heads};
  const LaneRows<const float> k = lane.rows(args.k), v = lane.rows(args.v);
  const int first = BlockLane::tile_from_last() * Tiles::kOwn;
  const int end = min(first + Tiles::kOwn, tokens);
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * Tiles::kWarpRows;
  const int warp_first = first + warp_row;
  /// End of the keys that any query of the warp sees; 0 for a warp beyond the last token.
  const int warp_end = warp_first < tokens ? min(warp_first + Tiles::kWarpRows, tokens) : 0;

  load_words<Tiles::kOwn, Tiles::kThreads>(
      first, tokens, {lane.rows(args.q)},
      WordTarget<Words, kD, Layouts::channels>{.channels = queries});
  __syncthreads();
  std::uint32_t left[kRowTiles][kSteps][4];
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      load_left<Tile>(queries, warp_row + kProductRows * m, step, fragment, left[m][step]);
    }
  }

  Running<Tiles> running;
  for (int base = 0; base < end; base += Tiles::kStream) {
    __syncthreads();  // the queries, or the last keys and values, have been read
    load_words<Tiles::kStream, Tiles::kThreads>(
        base, tokens, {k, v}, WordTarget<Words, kD, Layouts::channels>{.channels = keys},
        WordTarget<Words, kD, Layouts::tokens>{.tokens = values});
    __syncthreads();
    if (base >= warp_end) continue;  // uniform in the warp

    float products[kRowTiles][kKeyTiles][4];
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) products[m][n][i] = 0.0F;
      }
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const std::uint32_t* right = right_of_channels<Tile>(keys, n, step, fragment);
        const std::uint32_t b0 = right[0], b1 = right[4];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Words::multiply_add(products[m][n], left[m][step], b0, b1);  // 1
        }
      }
    }

    // 2. Only tiles on the diagonal hide keys.
    if (base + Tiles::kStream <= warp_first + 1) {
      running.template take_in<false>(products, warp_first - base, fragment, args.exponent_scale);
    } else {
      running.template take_in<true>(products, warp_first - base, fragment, args.exponent_scale);
    }

    // 3. As add_weighted_words, but each word is read once for all row tiles.
#pragma unroll
    for (int step = 0; step < kKeyTiles / Words::kPack; ++step) {
      std::uint32_t weights[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) Words::to_left(products[m], step, weights[m]);
      const std::uint32_t* right =
          values + (kStepWords * step + fragment.t) * Tile::kTokenStride + fragment.g;
#pragma unroll
      for (int n = 0; n < kChannelTiles; ++n) {
        const std::uint32_t b0 = right[kProductCols * n];
        const std::uint32_t b1 = right[4 * Tile::kTokenStride + kProductCols * n];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Words::multiply_add(running.sums[m][n], weights[m], b0, b1);
        }
      }
    }
  }

  const LaneRows<float> o = lane.rows(args.o);
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = running.total[m][half];
      sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 1);
      sum += __shfl_xor_sync(0xFFFFFFFFU, sum, 2);
      const int token = warp_first + kProductRows * m + 8 * half + fragment.g;
      if (token >= tokens) continue;
      const float scale = 1.0F / sum;
#pragma unroll
      for (int n = 0; n < kChannelTiles; ++n) {
        const float(&sums)[4] = running.sums[m][n];
        store_pair(o, token, kProductCols * n + 2 * fragment.t, scale * sums[2 * half],
                   scale * sums[2 * half + 1]);
      }
      if (args.normalisation != nullptr && fragment.t == 0) {
        args.normalisation[lane.term(token)] = make_float2(running.shift[m][half], scale);
      }
    }
  }
}

template <class Tiles>
void launch(cudaStream_t stream, const Forward& args) {
  constexpr int kBytes = Tiles::kSharedWords * static_cast<int>(sizeof(std::uint32_t));
  static_assert(kBytes <= kSharedBytes);
  const Arguments arguments{.tokens = static_cast<int>(args.dims.tokens),
                            .heads = static_cast<int>(args.dims.heads),
                            .q = Rows(args.q),
                            .k = Rows(args.k),
                            .v = Rows(args.v),
                            .o = Rows(args.o),
                            .normalisation = args.normalisation,
                            .exponent_scale = exponent_scale(args.dims.d_h)};
  const dim3 grid = grid_of(args.dims, Tiles::kOwn);
  VLA_CUDA(cudaFuncSetAttribute(forward_mma_kernel<Tiles>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  forward_mma_kernel<Tiles><<<grid, Tiles::kThreads, kBytes, stream>>>(arguments);
  VLA_CUDA_LAUNCHED("forward_mma_kernel");
}

template <class Words, int kD>
void choose(cudaStream_t stream, const Forward& args) {
  // Two row tiles per warp, unless their queries and outputs would overflow the registers.
  using Wide = ForwardTiles < Words, kD, 4, kD / Words::kPack<64 ? 2 : 1, 64>;
  using Narrow = ForwardTiles<Words, kD, 2, 1, 32>;
  if (takes_wide(args.tiling, args.dims, Wide::kOwn)) {
    launch<Wide>(stream, args);
  } else {
    launch<Narrow>(stream, args);
  }
}

template <class Words>
void choose_head_size(cudaStream_t stream, const Forward& args) {
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

void forward_tensor_cores(cudaStream_t stream, Precision precision, const Forward& args) {
  if (precision == Precision::tf32) {
    choose_head_size<Tf32Words>(stream, args);
  } else {
    choose_head_size<Bf16Words>(stream, args);
  }
}

}  // namespace vla_bench::mixers::softmax::cuda
