// Softmax cross entropy: one warp per row, or one thread block per row where the vocabulary is
// large; the losses of a block's rows are summed in double, and the last block to finish adds up
// the blocks in order.
//
// At the published size (1,536 targets, V = 128) logits are read and their gradients written in
// place, 1.6 MB in L2: a floor below 1 us. 4 us expected: one launch, three warp reductions per
// row, one last block. A chunk of 4,096 rows of V = 8,192 (ops::logit_chunk_rows) is 134 MB, read
// once into registers and written: a floor of 56 us at 4.8 TB/s.
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
/// Logits of a row that a thread keeps in registers. Rows of up to 1,024 take one warp, longer ones
/// a thread block; those of more than 8,192 are read three times.
constexpr int kKept = 32;
constexpr Index kMostLogitsOfWarp = Index{kKept} * kWarp;
constexpr Index kMostLogitsKept = Index{kKept} * kThreads;
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

/// A row of logits as its team reads it: each thread's share kept in registers, or read again.
template <int kRowWarps, bool kKeeps>
struct Row {
  const float* logits;
  int V;
  int thread;
  float kept[kKeeps ? kKept : 1];

  __device__ Row(const float* row, int cols, int team_thread)
      : logits(row), V(cols), thread(team_thread) {
    if constexpr (kKeeps) {
      for_each([&](int slot, int j) { kept[slot] = logits[j]; });
    }
  }
  __device__ float at(int slot, int j) const {
    if constexpr (kKeeps) return kept[slot];
    return logits[j];
  }
  /// Calls visit(slot, column) for the thread's columns in ascending order.
  template <class Visit>
  __device__ void for_each(const Visit& visit) const {
    constexpr int kSize = kRowWarps * kWarp;
    if constexpr (kKeeps) {
#pragma unroll
      for (int slot = 0; slot < kKept; ++slot) {
        const int j = slot * kSize + thread;
        if (j < V) visit(slot, j);
      }
    } else {
#pragma unroll 4
      for (int j = thread; j < V; j += kSize) visit(0, j);
    }
  }
};

// Three blocks per multiprocessor: with more, the kept logits do not fit into registers.
template <int kRowWarps, bool kKeeps>
__global__ void __launch_bounds__(kThreads, 3)
    cross_entropy_kernel(CrossEntropy<float> args, float scale, BlockLoss* blocks,
                         unsigned* counter) {
  constexpr int kRows = kWarps / kRowWarps;  // rows of a block at once
  __shared__ float shared[kWarps];
  __shared__ BlockLoss row_sums[kRows];
  const RowTeam<kRowWarps> team{shared};
  const int row_of_block = static_cast<int>(threadIdx.x) / team.kSize;

  BlockLoss sums{};
  for (Index index = static_cast<Index>(blockIdx.x) * kRows + row_of_block;
       index < args.logits.rows; index += static_cast<Index>(gridDim.x) * kRows) {
    const float* logits = args.logits.data + index * args.logits.stride;
    const int target = args.targets[index];
    const float target_logit = logits[target];
    Row<kRowWarps, kKeeps> row(logits, static_cast<int>(args.logits.cols), team.thread());
    // Skips NaN; the sum of exponentials then is NaN.
    float maximum = -INFINITY;
    row.for_each([&](int slot, int j) { maximum = fmaxf(maximum, row.at(slot, j)); });
    maximum = team.max(maximum);

    float sum = 0.0F;
    bool earlier = false;  // an equal largest logit precedes the target: the first one wins
    row.for_each([&](int slot, int j) {
      const float logit = row.at(slot, j);
      const float exponential = expf(logit - maximum);
      if constexpr (kKeeps) row.kept[slot] = exponential;
      sum += exponential;
      earlier = earlier || (j < target && logit == maximum);
    });
    sum = team.sum(sum);
    earlier = team.any(earlier);
    sums.loss += static_cast<double>(logf(sum) + (maximum - target_logit));
    sums.correct += target_logit == maximum && !earlier ? 1 : 0;

    if (args.dlogits.data == nullptr) continue;
    // May be the logits' memory: only the thread that writes an element still reads it.
    float* dlogits = args.dlogits.data + index * args.dlogits.stride;
    const float factor = scale / sum;
    row.for_each([&](int slot, int j) {
      const float exponential = kKeeps ? row.at(slot, j) : expf(row.at(slot, j) - maximum);
      dlogits[j] = exponential * factor - (j == target ? scale : 0.0F);
    });
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

template <int kRowWarps, bool kKeeps>
void launch(const CrossEntropy<float>& args) {
  using vla_bench::cuda::StreamContext;
  StreamContext& gpu = vla_bench::cuda::stream_context();
  constexpr Index kRows = kWarps / kRowWarps;
  const Index blocks = std::min((args.logits.rows + kRows - 1) / kRows, kMostBlocks);
  const Index mean_rows = args.mean_rows > 0 ? args.mean_rows : args.logits.rows;
  auto* memory = static_cast<char*>(
      gpu.scratch(gpu.stream(), StreamContext::kCounterBytes + blocks * sizeof(BlockLoss)));
  cross_entropy_kernel<kRowWarps, kKeeps>
      <<<static_cast<unsigned>(blocks), kThreads, 0, gpu.stream()>>>(
          args, static_cast<float>(1.0 / static_cast<double>(mean_rows)),
          reinterpret_cast<BlockLoss*>(memory + StreamContext::kCounterBytes),
          reinterpret_cast<unsigned*>(memory));
  VLA_CUDA_LAUNCHED("cross_entropy");
}

}  // namespace

void cross_entropy(const Context&, const CrossEntropy<float>& args) {
  if (args.logits.cols <= kMostLogitsOfWarp) {
    launch<1, true>(args);
  } else if (args.logits.cols <= kMostLogitsKept) {
    launch<kWarps, true>(args);
  } else {
    launch<kWarps, false>(args);
  }
}

}  // namespace vla_bench::ops::cuda
