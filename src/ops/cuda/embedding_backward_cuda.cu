// Backward of an embedding: dtoken_table[v] += sum of the rows of dh whose token is v,
// dposition_table[t] += sum of the rows of position t. Without atomic additions: a thread block
// owns a few token values, searches all tokens for them, and its warps add the rows found, in
// order.
//
// At the published size (M = 4,672, D = 128, V = 128, T = 73) dh is read twice, 4.8 MB from L2: a
// floor of 1 us at 5 TB/s. 128 blocks of one value read 18.7 KB of tokens each, 2.4 MB; a warp
// finds 4 or 5 rows. 4 us expected: one launch and three dependent reads (tokens, rows, table),
// about 0.5 us each. With V = 8,192 a block owns 8 values: at M = 32,768 the 1,024 groups of values
// read 134 MB of tokens from L2 and 4 segments of positions have separate sums, 16.8 MB written and
// read: about 40 us expected.
#include <cuda_runtime.h>

#include <algorithm>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "ops/backends.h"
#include "ops/cuda/reduce.cuh"

namespace vla_bench::ops::cuda {
namespace {

constexpr int kScatterWarps = 8;
constexpr int kScatterThreads = kScatterWarps * kWarp;
constexpr int kThreadChannels = 4;
constexpr int kChannels =
    kThreadChannels * kWarp;  // per block: thread l of a warp has l, l + 32, ...

// Token values that a block may own. More would share one pass over the tokens, but their sums fill
// shared memory: 8 warps * 8 values * 512 bytes.
constexpr int kMostValues = 8;
/// Vocabularies up to this size get one block per value.
constexpr Index kMostSingleValues = 1024;

constexpr int kScans = 8;                 // tokens that a thread scans before rows are added
constexpr int kScanned = kScans * kWarp;  // tokens that a warp scans
constexpr int kOffsetBits = 8;            // bits of a position within them
static_assert(kScanned == 1 << kOffsetBits);
constexpr int kRowsAhead = 4;  // rows read before the first of them is added

// Positions are split into segments with separate sums, so that a value that fills the batch (the
// filler of the zoology layout) is not the work of a single block. Up to this many positions there
// is one segment, and the sums go straight to the table.
constexpr Index kSegmentPositions = 8192;
constexpr Index kMostSegments = 16;
constexpr Index kMostPartialBytes = Index{64} << 20;

using Sums = float[kMostValues][kChannels];

struct Cut {
  int values;             // per block
  unsigned value_groups;  // blocks of token values; each block after them has one position
  unsigned segments;
  Index warp_positions;  // positions that a warp scans, a multiple of 32
};

struct Scatter {
  EmbeddingBackward<float> args;
  Cut cut;
  float* partials;  // (segments, V, D) where there are several segments
};

/// Adds to `sums` the rows of the block's values that a warp finds among its positions. Only thread
/// l of the warp touches channels l, l + 32, ...
__device__ void add_found_rows(const Scatter& scatter, int first_channel, std::uint16_t* found,
                               Sums& sums) {
  const EmbeddingBackward<float>& args = scatter.args;
  const int thread = static_cast<int>(threadIdx.x % kWarp);
  const unsigned threads_below = (1U << thread) - 1U;
  const auto values = static_cast<unsigned>(scatter.cut.values);
  const unsigned first_value = blockIdx.x * values;
  const Index D = args.dh.cols;
  const Index warp = static_cast<Index>(blockIdx.y) * kScatterWarps + threadIdx.x / kWarp;
  const Index first = warp * scatter.cut.warp_positions;
  const Index last = min(first + scatter.cut.warp_positions, args.dh.rows);
  for (Index scan = first; scan < last; scan += kScanned) {
    unsigned value[kScans];  // counted from the block's first; others are large
#pragma unroll
    for (int k = 0; k < kScans; ++k) {
      const Index position = scan + k * kWarp + thread;
      value[k] =
          position < last ? static_cast<unsigned>(args.tokens[position]) - first_value : values;
    }
    int count = 0;
#pragma unroll
    for (int k = 0; k < kScans; ++k) {
      const bool mine = value[k] < values;
      const unsigned finders = __ballot_sync(0xFFFFFFFFU, mine);
      if (mine) {
        found[count + __popc(finders & threads_below)] =
            static_cast<std::uint16_t>(value[k] << kOffsetBits | (k * kWarp + thread));
      }
      count += __popc(finders);
    }
    __syncwarp();
    const float* rows = args.dh.data + scan * args.dh.stride + first_channel + thread;
    for (int next = 0; next < count; next += kRowsAhead) {
      float row[kRowsAhead][kThreadChannels] = {};
      int row_value[kRowsAhead];
#pragma unroll
      for (int r = 0; r < kRowsAhead; ++r) {
        if (next + r >= count) continue;
        const int entry = found[next + r];
        row_value[r] = entry >> kOffsetBits;
        const float* from = rows + (entry & (kScanned - 1)) * args.dh.stride;
#pragma unroll
        for (int i = 0; i < kThreadChannels; ++i) {
          if (first_channel + thread + i * kWarp < D) row[r][i] = from[i * kWarp];
        }
      }
#pragma unroll
      for (int r = 0; r < kRowsAhead; ++r) {
        if (next + r >= count) continue;
        float* sum = sums[row_value[r]] + thread;
#pragma unroll
        for (int i = 0; i < kThreadChannels; ++i) sum[i * kWarp] += row[r][i];
      }
    }
    __syncwarp();  // `found` is written again
  }
}

/// Adds to `sums` a warp's share of the batch's rows at position `position`.
__device__ void add_position_rows(const Scatter& scatter, Index position, int first_channel,
                                  Sums& sums) {
  const EmbeddingBackward<float>& args = scatter.args;
  const int channel = first_channel + static_cast<int>(threadIdx.x % kWarp);
  float sum[kThreadChannels] = {};
#pragma unroll 4
  for (Index b = threadIdx.x / kWarp; b < args.batch; b += kScatterWarps) {
    const float* row = args.dh.data + (b * args.tokens_per_row + position) * args.dh.stride;
#pragma unroll
    for (int i = 0; i < kThreadChannels; ++i) {
      if (channel + i * kWarp < args.dh.cols) sum[i] += row[channel + i * kWarp];
    }
  }
#pragma unroll
  for (int i = 0; i < kThreadChannels; ++i) sums[0][threadIdx.x % kWarp + i * kWarp] = sum[i];
}

/// Block (group of values or position, segment, group of channels).
__global__ void __launch_bounds__(kScatterThreads) scatter_kernel(Scatter scatter) {
  __shared__ Sums sums[kScatterWarps];
  __shared__ std::uint16_t found[kScatterWarps][kScanned];
  const EmbeddingBackward<float>& args = scatter.args;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int first_channel = static_cast<int>(blockIdx.z) * kChannels;
  const bool has_values = blockIdx.x < scatter.cut.value_groups;
  const Index position = static_cast<Index>(blockIdx.x) - scatter.cut.value_groups;
  // A position is summed by one block.
  if (!has_values && blockIdx.y > 0) return;
  if (has_values) {
    for (int v = 0; v < scatter.cut.values; ++v) {
      for (int i = 0; i < kThreadChannels; ++i) {
        sums[warp][v][threadIdx.x % kWarp + i * kWarp] = 0.0F;
      }
    }
    add_found_rows(scatter, first_channel, found[warp], sums[warp]);
  } else {
    add_position_rows(scatter, position, first_channel, sums[warp]);
  }
  __syncthreads();

  const int values = has_values ? scatter.cut.values : 1;
  for (int i = static_cast<int>(threadIdx.x); i < values * kChannels; i += kScatterThreads) {
    const int v = i / kChannels;
    const int channel = first_channel + i % kChannels;
    const Index row = has_values ? static_cast<Index>(blockIdx.x) * values + v : position;
    if (channel >= args.dh.cols || (has_values && row >= args.dtoken_table.rows)) continue;
    float total = sums[0][v][i % kChannels];
    for (int w = 1; w < kScatterWarps; ++w) total += sums[w][v][i % kChannels];
    if (!has_values) {
      args.dposition_table.data[row * args.dposition_table.stride + channel] += total;
    } else if (scatter.cut.segments == 1) {
      args.dtoken_table.data[row * args.dtoken_table.stride + channel] += total;
    } else {
      const Index segment_row = blockIdx.y * args.dtoken_table.rows + row;
      scatter.partials[segment_row * args.dh.cols + channel] = total;
    }
  }
}

/// Adds up the segments; one warp per row of the table.
__global__ void __launch_bounds__(kScatterThreads) add_segments_kernel(Scatter scatter) {
  const Matrix<float>& table = scatter.args.dtoken_table;
  const Index row = static_cast<Index>(blockIdx.x) * kScatterWarps + threadIdx.x / kWarp;
  if (row >= table.rows) return;
  const Index D = scatter.args.dh.cols;
  for (Index channel = threadIdx.x % kWarp; channel < D; channel += kWarp) {
    const float* partial = scatter.partials + row * D + channel;
    float total = 0.0F;
#pragma unroll 4
    for (unsigned s = 0; s < scatter.cut.segments; ++s) total += partial[s * table.rows * D];
    table.data[row * table.stride + channel] += total;
  }
}

Cut cut_of(const EmbeddingBackward<float>& args) {
  const Index V = args.dtoken_table.rows;
  const Index rows = args.dh.rows;
  Cut cut{};
  cut.values = V <= kMostSingleValues ? 1 : kMostValues;
  cut.value_groups = static_cast<unsigned>((V + cut.values - 1) / cut.values);
  const Index wanted = std::min((rows + kSegmentPositions - 1) / kSegmentPositions, kMostSegments);
  const Index table_bytes = V * args.dh.cols * static_cast<Index>(sizeof(float));
  cut.segments = static_cast<unsigned>(
      std::clamp(wanted, Index{1}, std::max(Index{1}, kMostPartialBytes / table_bytes)));
  const Index warps = Index{cut.segments} * kScatterWarps;
  cut.warp_positions = (rows + warps * kWarp - 1) / (warps * kWarp) * kWarp;
  return cut;
}

}  // namespace

void embedding_backward(const Context&, const EmbeddingBackward<float>& args) {
  if (args.dh.rows == 0) return;
  using vla_bench::cuda::StreamContext;
  StreamContext& gpu = vla_bench::cuda::stream_context();
  Scatter scatter{.args = args, .cut = cut_of(args), .partials = nullptr};
  const unsigned segments = scatter.cut.segments;
  if (segments > 1) {
    const Index partials = segments * args.dtoken_table.rows * args.dh.cols;
    auto* memory = static_cast<char*>(
        gpu.scratch(gpu.stream(), StreamContext::kCounterBytes + partials * sizeof(float)));
    scatter.partials = reinterpret_cast<float*>(memory + StreamContext::kCounterBytes);
  }
  const auto positions =
      static_cast<unsigned>(args.dposition_table.empty() ? 0 : args.tokens_per_row);
  const auto channel_groups = static_cast<unsigned>((args.dh.cols + kChannels - 1) / kChannels);
  scatter_kernel<<<dim3(scatter.cut.value_groups + positions, segments, channel_groups),
                   kScatterThreads, 0, gpu.stream()>>>(scatter);
  VLA_CUDA_LAUNCHED("embedding_backward");
  if (segments > 1) {
    const auto blocks =
        static_cast<unsigned>((args.dtoken_table.rows + kScatterWarps - 1) / kScatterWarps);
    add_segments_kernel<<<blocks, kScatterThreads, 0, gpu.stream()>>>(scatter);
    VLA_CUDA_LAUNCHED("embedding_backward, segments");
  }
}

}  // namespace vla_bench::ops::cuda
