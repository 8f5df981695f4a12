// Softmax attention forward in plain float32; the numbers are the steps of softmax.h.
#include <cfloat>

#include "mixers/softmax/softmax_fma.cuh"

namespace vla_bench::mixers::softmax::cuda {
namespace {

template <class Tiles>
constexpr int forward_bytes() {
  // Queries, and keys, values and weights of every group.
  const int group = 2 * Tiles::kStream * Tiles::kStride + Tiles::kWeights;
  return (Tiles::kOwn * Tiles::kStride + Tiles::kGroups * group) * static_cast<int>(sizeof(float));
}

/// A thread's online softmax of its own rows.
template <class Tiles>
struct Running {
  float shift[Tiles::kRows];                      // of the exponent: the largest so far
  float total[Tiles::kRows] = {};                 // sum of the thread's own weights on that scale
  float4 sums[Tiles::kRows][Tiles::kQuads] = {};  // unnormalised outputs on that scale

  __device__ Running() {
    // Finite, so that differences are numbers.
#pragma unroll
    for (float& of_row : shift) of_row = -FLT_MAX;
  }

  __device__ void rescale(int r, float factor) {
    total[r] *= factor;
    unrolled<Tiles::kQuads>([&](int m) { sums[r][m] = scaled(factor, sums[r][m]); });
  }

  /// Step 2 up to the normalisation: `products` become weights on the scale of the new shift. Keys
  /// later than `diagonal` + query's row - key's row = 0 are invisible.
  __device__ void update(float (&products)[Tiles::kRows][Tiles::kCols], int diagonal, int tx,
                         int ty, float exponent_scale) {
    unrolled<Tiles::kRows>([&](int r) {
      const int visible = diagonal + ty + Tiles::kTy * r - tx;  // last visible column kTx c
      float largest = -FLT_MAX;
      unrolled<Tiles::kCols>([&](int c) {
        if (Tiles::kTx * c <= visible) largest = fmaxf(largest, products[r][c]);
      });
      // Rounding is monotonic, so the largest product has the largest exponent.
      const float now = fmaxf(shift[r], row_max<Tiles>(largest) * exponent_scale);
      rescale(r, exp2_approximate(shift[r] - now));
      shift[r] = now;
      unrolled<Tiles::kCols>([&](int c) {
        const float weight = exp2_approximate(fmaf(products[r][c], exponent_scale, -now));
        products[r][c] = Tiles::kTx * c <= visible ? weight : 0.0F;
        total[r] += products[r][c];
      });
    });
  }
};

/// Adds the groups' sums, in the order of the groups, to the first group's. `memory` has room for
/// kOwn * kStride floats per group.
template <class Tiles>
__device__ void merge_groups(Running<Tiles>& running, float* memory, int group, int tx, int ty) {
  constexpr int kShift = Tiles::kChannels, kTotal = kShift + 1;  // in the gap between rows
  if (group > 0) {
    float* tile = memory + group * Tiles::kOwn * Tiles::kStride;
    unrolled<Tiles::kRows>([&](int r) {
      float* row = tile + (ty + Tiles::kTy * r) * Tiles::kStride;
      unrolled<Tiles::kQuads>([&](int m) {
        *reinterpret_cast<float4*>(row + 4 * (tx + Tiles::kTx * m)) = running.sums[r][m];
      });
      if (tx == 0) {
        row[kShift] = running.shift[r];
        row[kTotal] = running.total[r];
      }
    });
  }
  __syncthreads();
  if (group > 0) return;
  for (int other = 1; other < Tiles::kGroups; ++other) {
    const float* tile = memory + other * Tiles::kOwn * Tiles::kStride;
    unrolled<Tiles::kRows>([&](int r) {
      const float* row = tile + (ty + Tiles::kTy * r) * Tiles::kStride;
      const float now = fmaxf(running.shift[r], row[kShift]);
      running.rescale(r, exp2_approximate(running.shift[r] - now));
      running.shift[r] = now;
      const float factor = exp2_approximate(row[kShift] - now);
      running.total[r] = fmaf(factor, row[kTotal], running.total[r]);
      unrolled<Tiles::kQuads>([&](int m) {
        add_scaled(factor, quad(row + 4 * (tx + Tiles::kTx * m)), running.sums[r][m]);
      });
    });
  }
}

/// Block (head, batch element, tile): kOwn queries against the keys up to the last of them, kGroups
/// tiles of keys at a time. Pipelined: the copies of the next keys overlap steps 2 and 3, those of
/// the next values step 1.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads, Tiles::kBlocks)
    forward_float32_kernel(const Forward args) {
  constexpr int kStreamFloats = Tiles::kStream * Tiles::kStride;
  constexpr int kStep = Tiles::kGroups * Tiles::kStream;
  float* queries = shared_memory();
  float* keys = queries + Tiles::kOwn * Tiles::kStride;
  float* values = keys + Tiles::kGroups * kStreamFloats;
  float* weights = values + Tiles::kGroups * kStreamFloats;

  const int group = threadIdx.x / Tiles::kGroupThreads;
  const int tx = threadIdx.x % Tiles::kTx;
  const int ty = threadIdx.x % Tiles::kGroupThreads / Tiles::kTx;
  float* own_keys = keys + group * kStreamFloats;
  float* own_values = values + group * kStreamFloats;
  float* own_weights = weights + group * Tiles::kWeights;

  const BlockLane lane(args.dims);
  const int tokens = lane.tokens;
  const LaneRows<const float> k = lane.rows(args.k), v = lane.rows(args.v);
  const TileRange<Tiles::kOwn, true> range(tokens);
  const int first = range.first, end = range.end;

  copy_rows<Tiles, Tiles::kOwn>(queries, lane.rows(args.q), first, tokens);
  copy_rows<Tiles, kStep>(keys, k, 0, tokens);
  close_group();
  copy_rows<Tiles, kStep>(values, v, 0, tokens);
  close_group();

  Running<Tiles> running;
  for (int base = 0; base < end; base += kStep) {
    const int next = base + kStep;
    const int first_key = base + group * Tiles::kStream;
    const bool has_keys = first_key < end;  // uniform in a group
    float products[Tiles::kRows][Tiles::kCols];

    wait_for_groups<1>();
    __syncthreads();                                                          // keys have arrived
    if (has_keys) multiply_rows<Tiles>(queries, own_keys, tx, ty, products);  // 1
    __syncthreads();  // the keys have been read
    if (next < end) copy_rows<Tiles, kStep>(keys, k, next, tokens);
    close_group();

    if (has_keys) {
      running.update(products, first - first_key, tx, ty, args.exponent_scale);  // 2
      store_weights<Tiles>(products, tx, ty, own_weights);
    }
    wait_for_groups<1>();
    __syncthreads();  // values and weights are complete
    if (has_keys) add_weighted_rows<Tiles>(own_weights, own_values, tx, ty, running.sums);  // 3
    __syncthreads();
    if (next < end) copy_rows<Tiles, kStep>(values, v, next, tokens);
    close_group();
  }

  unrolled<Tiles::kRows>([&](int r) { running.total[r] = row_sum<Tiles>(running.total[r]); });
  if constexpr (Tiles::kGroups > 1) {
    // Keys and values are no longer needed: the last barrier of the loop came after the last read.
    static_assert(2 * Tiles::kStream >= Tiles::kOwn);
    merge_groups(running, keys, group, tx, ty);
    if (group > 0) return;
  }
  const LaneRows<float> o = lane.rows(args.o);
  unrolled<Tiles::kRows>([&](int r) {
    const int token = first + ty + Tiles::kTy * r;
    if (token >= tokens) return;
    const float scale = 1.0F / running.total[r];
    unrolled<Tiles::kQuads>([&](int m) {
      store_quad(o, token, 4 * (tx + Tiles::kTx * m), scaled(scale, running.sums[r][m]));
    });
    if (args.normalisation != nullptr && tx == 0) {
      args.normalisation[lane.term(token)] = make_float2(running.shift[r], scale);
    }
  });
}

template <class Tiles>
void launch(cudaStream_t stream, const Forward& args) {
  launch<Tiles, forward_bytes<Tiles>()>(stream, "forward_float32_kernel",
                                        forward_float32_kernel<Tiles>, args);
}

template <int kD, int kTx, class Wide, class Medium>
void choose(cudaStream_t stream, const Forward& args) {
  using Narrow = FmaTiles<kD, kTx, kWarp / kTx, 16 * kTx / kWarp, 32 / kTx>;
  using SharedKeys = FmaTiles<kD, kTx, kWarp / kTx, 16 * kTx / kWarp, 32 / kTx, 4>;
  static_assert(Narrow::kOwn == 16 && Narrow::kStream == 32 && Narrow::kThreads == kWarp);
  switch (choose_tiling(args.tiling, args.dims, Wide::kOwn, Medium::kOwn, Narrow::kOwn)) {
    case SoftmaxTiling::wide:
      return launch<Wide>(stream, args);
    case SoftmaxTiling::medium:
      return launch<Medium>(stream, args);
    case SoftmaxTiling::narrow:
      return launch<Narrow>(stream, args);
    default:
      return launch<SharedKeys>(stream, args);
  }
}

}  // namespace

void forward_float32(cudaStream_t stream, const Forward& args) {
  switch (args.dims.d_h) {
    case 8:
      return choose<8, 2, FmaTiles<8, 2, 16, 4, 16>, FmaTiles<8, 2, 16, 2, 16, 2>>(stream, args);
    case 16:
      return choose<16, 4, FmaTiles<16, 4, 16, 8, 8>, FmaTiles<16, 4, 8, 4, 8, 2>>(stream, args);
    case 32:
      return choose<32, 8, FmaTiles<32, 8, 16, 8, 8>, FmaTiles<32, 8, 8, 4, 8, 2>>(stream, args);
    case 64:
      return choose<64, 8, FmaTiles<64, 8, 16, 8, 8>, FmaTiles<64, 8, 8, 4, 8, 2>>(stream, args);
    case 128:  // the outputs of a thread take twice the registers
      return choose<128, 8, FmaTiles<128, 8, 16, 4, 4>, FmaTiles<128, 8, 8, 4, 4, 2>>(stream, args);
    default:
      return launch<LargestTiles>(stream, args);
  }
}

}  // namespace vla_bench::mixers::softmax::cuda
