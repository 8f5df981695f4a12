// Softmax cross entropy: one warp per row, or one thread block per row where the vocabulary is
// large; the losses of a block's rows are summed in double, and the last block to finish adds up
// the blocks in order.
//
// At the published size (1,536 targets, V = 128) logits are read and their gradients written in
// place, 1.6 MB in L2: a floor below 1 us. 4 us expected: one launch, three warp reductions per
// row, one last block. A chunk of 512 rows of V = 8,192 (ops::logit_chunk_rows) is in L2 as well:
// 16 MiB read, twice more from L1, and written, a floor of 6 us at 5.5 TB/s.
#include <cuda_runtime.h>

#include <algorithm>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "ops/backends.h"
#include "ops/cuda/reduce.cuh"

namespace vla_bench::ops::cuda {
namespace {

constexpr int kWarps = 8;  // per thread block
constexpr int kThreads = kWarps * kWarp;
/// Rows of up to this many logits take one warp: 32 per thread.
constexpr Index kMostLogitsOfWarp = 1024;
// Fixed, so that the order of the sum is fixed: eight blocks for each of 256 multiprocessors.
constexpr Index kMostBlocks = 2048;

/// The loss of a block's rows.
struct BlockLoss {
  double loss;
  Index correct;
};

/// The threads that work on one row: kRowWarps warps, 1 or all of the block.
template <int kRowWarps>
struct RowTeam {
  static_assert(kRowWarps == 1 || kRowWarps == kWarps);
  static constexpr int kSize = kRowWarps * kWarp;
  float (&shared)[kWarps];

  __device__ int thread() const { return static_cast<int>(threadIdx.x) % kSize; }
  __device__ float max(float value) const {
    if constexpr (kRowWarps == 1) return warp_max(value);
    return block_max<kWarps>(value, shared);
  }
  __device__ float sum(float value) const {
    if constexpr (kRowWarps == 1) return warp_sum(value);
    return block_sum<kWarps>(value, shared);
  }
  /// Also a barrier: the row's threads have finished their earlier reads.
  __device__ bool any(bool value) const {
    if constexpr (kRowWarps == 1) {
      const bool result = __any_sync(0xFFFFFFFFU, value);
      __syncwarp();
      return result;
    }
    return __syncthreads_or(value) != 0;
  }
};

// Four blocks per multiprocessor are enough; with eight the assembler spills registers.
template <int kRowWarps>
__global__ void __launch_bounds__(kThreads, 4)
    cross_entropy_kernel(CrossEntropy<float> args, float scale, BlockLoss* blocks,
                         unsigned* counter) {
  constexpr int kRows = kWarps / kRowWarps;  // rows of a block at once
  __shared__ float shared[kWarps];
  __shared__ BlockLoss row_sums[kRows];
  const RowTeam<kRowWarps> team{shared};
  const int row_of_block = static_cast<int>(threadIdx.x) / team.kSize;
  const int V = static_cast<int>(args.logits.cols);

  BlockLoss sums{};
  for (Index row = static_cast<Index>(blockIdx.x) * kRows + row_of_block; row < args.logits.rows;
       row += static_cast<Index>(gridDim.x) * kRows) {
    const float* logits = args.logits.data + row * args.logits.stride;
    const int target = args.targets[row];
    const float target_logit = logits[target];
    // Skips NaN; the sum of exponentials then is NaN.
    float maximum = -INFINITY;
#pragma unroll 4
    for (int j = team.thread(); j < V; j += team.kSize) maximum = fmaxf(maximum, logits[j]);
    maximum = team.max(maximum);

    float sum = 0.0F;
    bool earlier = false;  // an equal largest logit precedes the target: the first one wins
#pragma unroll 4
    for (int j = team.thread(); j < V; j += team.kSize) {
      const float logit = logits[j];
      sum += expf(logit - maximum);
      earlier = earlier || (j < target && logit == maximum);
    }
    sum = team.sum(sum);
    earlier = team.any(earlier);
    sums.loss += static_cast<double>(logf(sum) + (maximum - target_logit));
    sums.correct += target_logit == maximum && !earlier ? 1 : 0;

    if (args.dlogits.data == nullptr) continue;
    // May be the logits' memory: only the thread that writes an element still reads it.
    float* dlogits = args.dlogits.data + row * args.dlogits.stride;
    const float factor = scale / sum;
#pragma unroll 4
    for (int j = team.thread(); j < V; j += team.kSize) {
      dlogits[j] = expf(logits[j] - maximum) * factor - (j == target ? scale : 0.0F);
    }
  }

  if (team.thread() == 0) row_sums[row_of_block] = sums;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kRows; ++i) {
      sums.loss += row_sums[i].loss;
      sums.correct += row_sums[i].correct;
    }
    blocks[blockIdx.x] = sums;
  }
  if (!is_last_block(counter, gridDim.x)) return;
  __shared__ double losses[kWarps];
  __shared__ Index corrects[kWarps];
  sums = {};
  for (unsigned block = threadIdx.x; block < gridDim.x; block += kThreads) {
    sums.loss += blocks[block].loss;
    sums.correct += blocks[block].correct;
  }
  const double loss = block_sum<kWarps>(sums.loss, losses);
  const Index correct = block_sum<kWarps>(sums.correct, corrects);
  if (threadIdx.x == 0) {
    const LossSums before = args.accumulate ? *args.sums : LossSums{};
    args.sums->loss = before.loss + loss;
    args.sums->correct = before.correct + correct;
    args.sums->count = before.count + args.logits.rows;
  }
}

template <int kRowWarps>
void launch(const CrossEntropy<float>& args) {
  using vla_bench::cuda::StreamContext;
  StreamContext& gpu = vla_bench::cuda::stream_context();
  constexpr Index kRows = kWarps / kRowWarps;
  const Index blocks = std::min((args.logits.rows + kRows - 1) / kRows, kMostBlocks);
  const Index mean_rows = args.mean_rows > 0 ? args.mean_rows : args.logits.rows;
  auto* memory = static_cast<char*>(
      gpu.scratch(gpu.stream(), StreamContext::kCounterBytes + blocks * sizeof(BlockLoss)));
  cross_entropy_kernel<kRowWarps><<<static_cast<unsigned>(blocks), kThreads, 0, gpu.stream()>>>(
      args, static_cast<float>(1.0 / static_cast<double>(mean_rows)),
      reinterpret_cast<BlockLoss*>(memory + StreamContext::kCounterBytes),
      reinterpret_cast<unsigned*>(memory));
  VLA_CUDA_LAUNCHED("cross_entropy");
}

}  // namespace

void cross_entropy(const Context&, const CrossEntropy<float>& args) {
  if (args.logits.cols <= kMostLogitsOfWarp) {
    launch<1>(args);
  } else {
    launch<kWarps>(args);
  }
}

}  // namespace vla_bench::ops::cuda
