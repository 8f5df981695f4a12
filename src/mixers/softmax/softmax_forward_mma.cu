// Softmax attention forward on tensor cores; the numbers are the steps of softmax.h.
#include <algorithm>
#include <cfloat>

#include "mixers/softmax/softmax_words.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

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
  static constexpr int kBytes =
      std::max(Tile::channel_words(kOwn),
               Tile::channel_words(kStream) + Tile::token_words(kStream)) *
      static_cast<int>(sizeof(std::uint32_t));
};

/// A thread's online softmax of rows g and g + 8 of each row tile.
template <class Tiles>
struct RunningTiles {
  static constexpr int kKeyTiles = Tiles::kStream / kProductCols;
  static constexpr int kChannelTiles = Tiles::kD / kProductCols;

  float shift[Tiles::kRowTiles][2];                     // of the exponent: the largest so far
  float total[Tiles::kRowTiles][2] = {};                // sum of the thread's own weights
  float sums[Tiles::kRowTiles][kChannelTiles][4] = {};  // unnormalised outputs on that scale

  __device__ RunningTiles() {
    // Finite, so that differences are numbers.
#pragma unroll
    for (auto& halves : shift) halves[0] = halves[1] = -FLT_MAX;
  }

  /// Step 2 up to the normalisation: `products` become weights on the scale of the new shift.
  /// `diagonal` is the first query less the first key; without kMasked every key is visible.
  template <bool kMasked>
  __device__ void update(float (&products)[Tiles::kRowTiles][kKeyTiles][4], int diagonal,
                         const FragmentThread& fragment, float exponent_scale) {
    unrolled<Tiles::kRowTiles, 2>([&](int m, int half) {
      // Of the keys 8 n + i of this thread.
      const int visible = diagonal + kProductRows * m + 8 * half + fragment.g - 2 * fragment.t;
      float largest = -FLT_MAX;
      unrolled<kKeyTiles, 2>([&](int n, int i) {
        if (!kMasked || kProductCols * n + i <= visible) {
          largest = fmaxf(largest, products[m][n][2 * half + i]);
        }
      });
      // The four threads of a row.
      largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFU, largest, 2));
      const float now = fmaxf(shift[m][half], largest * exponent_scale);
      const float rescale = exp2_approximate(shift[m][half] - now);
      shift[m][half] = now;
      float sum = 0.0F;
      unrolled<kKeyTiles, 2>([&](int n, int i) {
        float& product = products[m][n][2 * half + i];
        const float weight = exp2_approximate(fmaf(product, exponent_scale, -now));
        product = !kMasked || kProductCols * n + i <= visible ? weight : 0.0F;
        sum += product;
      });
      total[m][half] = fmaf(total[m][half], rescale, sum);
      unrolled<kChannelTiles>([&](int n) {
        sums[m][n][2 * half] *= rescale;
        sums[m][n][2 * half + 1] *= rescale;
      });
    });
  }
};

/// Block (head, batch element, tile): kOwn queries against the keys up to the last of them.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads, Tiles::kBlocks)
    forward_mma_kernel(const Forward args) {
  using Words = typename Tiles::Words;
  using Tile = typename Tiles::Tile;
  constexpr int kD = Tiles::kD, kRowTiles = Tiles::kRowTiles, kStream = Tiles::kStream;
  auto* keys = reinterpret_cast<std::uint32_t*>(shared_memory());
  std::uint32_t* values = keys + Tile::channel_words(kStream);
  std::uint32_t* queries = keys;

  const FragmentThread fragment;
  const BlockLane lane(args.dims);
  const int tokens = lane.tokens;
  const LaneRows<const float> k = lane.rows(args.k), v = lane.rows(args.v);
  const TileRange<Tiles::kOwn, true> range(tokens);
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * Tiles::kWarpRows;
  const int warp_first = range.first + warp_row;
  /// End of the keys that any query of the warp sees; 0 for a warp beyond the last token.
  const int warp_end = warp_first < tokens ? min(warp_first + Tiles::kWarpRows, tokens) : 0;

  using Channels = WordTarget<Words, kD, Layouts::channels>;
  load_words<Tiles::kOwn, Tiles::kThreads>(range.first, tokens, {lane.rows(args.q)},
                                           Channels{.channels = queries});
  __syncthreads();
  const OwnRows<Words, kD, kRowTiles, true> own(queries, warp_row, fragment);

  RunningTiles<Tiles> running;
  for (int base = 0; base < range.end; base += kStream) {
    __syncthreads();  // the queries, or the last keys and values, have been read
    load_words<kStream, Tiles::kThreads>(base, tokens, {k, v}, Channels{.channels = keys},
                                         WordTarget<Words, kD, Layouts::tokens>{.tokens = values});
    __syncthreads();
    if (base >= warp_end) continue;  // uniform in the warp

    float products[kRowTiles][kStream / kProductCols][4];
    own.multiply(keys, products);  // 1
    // 2. Only tiles on the diagonal hide keys.
    if (base + kStream <= warp_first + 1) {
      running.template update<false>(products, warp_first - base, fragment, args.exponent_scale);
    } else {
      running.template update<true>(products, warp_first - base, fragment, args.exponent_scale);
    }
    add_weighted_words<Words, kD>(products, values, fragment, running.sums);  // 3
  }

  const LaneRows<float> o = lane.rows(args.o);
  unrolled<kRowTiles, 2>([&](int m, int half) {
    const float scale = 1.0F / row_sum(running.total[m][half]);
    const int token = warp_first + kProductRows * m + 8 * half + fragment.g;
    if (token >= tokens) return;
    write_row(running.sums[m], half, scale, o, token, fragment);
    if (args.normalisation != nullptr && fragment.t == 0) {
      args.normalisation[lane.term(token)] = make_float2(running.shift[m][half], scale);
    }
  });
}

template <class Tiles>
void launch_mma(cudaStream_t stream, const Forward& args) {
  launch<Tiles, Tiles::kBytes>(stream, "forward_mma_kernel", forward_mma_kernel<Tiles>, args);
}

template <class Words, int kD>
void choose(cudaStream_t stream, const Forward& args) {
  // Two row tiles per warp, unless their queries and outputs would overflow the registers.
  using Wide = ForwardTiles < Words, kD, 4, kD / Words::kPack<64 ? 2 : 1, 64>;
  using Narrow = ForwardTiles<Words, kD, 2, 1, 32>;
  if (takes_wide(args.tiling, args.dims, Wide::kOwn)) {
    launch_mma<Wide>(stream, args);
  } else {
    launch_mma<Narrow>(stream, args);
  }
}

}  // namespace

void forward_tensor_cores(cudaStream_t stream, Precision precision, const Forward& args) {
  with_words(precision, args.dims.d_h,
             [&]<class Words, int kD>() { choose<Words, kD>(stream, args); });
}

}  // namespace vla_bench::mixers::softmax::cuda
