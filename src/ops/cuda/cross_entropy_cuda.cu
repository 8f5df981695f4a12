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

/// How rows are dealt to threads: kWarps warps a block, kRowWarps of them (1 or all) to a row, of
/// which each thread keeps kKept logits in registers; 0: it reads them three times.
template <int kWarps_, int kRowWarps_, int kKept_>
struct RowShares {
  static constexpr int kWarps = kWarps_;
  static constexpr int kRowWarps = kRowWarps_;
  static constexpr int kKept = kKept_;
  static_assert(kRowWarps == 1 || kRowWarps == kWarps);
  static constexpr int kThreads = kWarps * kWarp;   // per thread block
  static constexpr int kRows = kWarps / kRowWarps;  // of a block at once
  static constexpr int kRowThreads = kRowWarps * kWarp;
};
using ShortRows = RowShares<8, 1, 0>;  // up to 1,024 logits
using KeptRows = RowShares<16, 16, 16>;
using LongRows = RowShares<16, 16, 0>;
constexpr Index kMostLogitsOfWarp = 1024;
constexpr Index kMostLogitsKept = Index{KeptRows::kThreads} * KeptRows::kKept;
// Fixed, so that the order of the sum is fixed: eight blocks for each of 256 multiprocessors.
constexpr Index kMostBlocks = 2048;

/// The loss of a block's rows.
struct BlockLoss {
  double loss;
  Index correct;
};

/// The threads that work on one row.
template <class Shares>
struct RowTeam {
  static constexpr int kWarps = Shares::kWarps;
  float (&shared)[kWarps];

  __device__ int thread() const { return static_cast<int>(threadIdx.x) % Shares::kRowThreads; }
  __device__ float max(float value) const {
    if constexpr (Shares::kRowWarps == 1) return warp_max(value);
    return block_max<kWarps>(value, shared);
  }
  __device__ float sum(float value) const {
    if constexpr (Shares::kRowWarps == 1) return warp_sum(value);
    return block_sum<kWarps>(value, shared);
  }
  /// Also a barrier: the row's threads have finished their earlier reads.
  __device__ bool any(bool value) const {
    if constexpr (Shares::kRowWarps == 1) {
      const bool result = __any_sync(0xFFFFFFFFU, value);
      __syncwarp();
      return result;
    }
    return __syncthreads_or(value) != 0;
  }
};

/// Calls visit(slot, column) for the logits of a row that a thread has, in ascending order: all
/// its kept slots, some of which may lie beyond the row.
template <class Shares, class Visit>
__device__ void for_thread_logits(int thread, int V, const Visit& visit) {
  if constexpr (Shares::kKept > 0) {
#pragma unroll
    for (int slot = 0; slot < Shares::kKept; ++slot) {
      visit(slot, slot * Shares::kRowThreads + thread);
    }
  } else {
#pragma unroll 4
    for (int j = thread; j < V; j += Shares::kRowThreads) visit(0, j);
  }
}

// 1,024 threads per multiprocessor are enough; with all 2,048 the assembler spills registers.
template <class Shares>
__global__ void __launch_bounds__(Shares::kThreads, 1024 / Shares::kThreads)
    cross_entropy_kernel(CrossEntropy<float> args, float scale, BlockLoss* blocks,
                         unsigned* counter) {
  constexpr int kWarps = Shares::kWarps;
  constexpr int kRows = Shares::kRows;
  constexpr bool kKeeps = Shares::kKept > 0;
  __shared__ float shared[kWarps];
  __shared__ BlockLoss row_sums[kRows];
  const RowTeam<Shares> team{shared};
  const int row_of_block = static_cast<int>(threadIdx.x) / Shares::kRowThreads;
  const auto V = static_cast<int>(args.logits.cols);

  BlockLoss sums{};
  for (Index index = static_cast<Index>(blockIdx.x) * kRows + row_of_block;
       index < args.logits.rows; index += static_cast<Index>(gridDim.x) * kRows) {
    const float* logits = args.logits.data + index * args.logits.stride;
    const int target = args.targets[index];
    const float target_logit = logits[target];
    const auto for_each = [&](const auto& visit) {
      for_thread_logits<Shares>(team.thread(), V, visit);
    };
    // Kept: the logits, with -inf beyond the row, then their exponentials. Else read again.
    float kept[kKeeps ? Shares::kKept : 1];
    if constexpr (kKeeps) {
      for_each([&](int slot, int j) { kept[slot] = j < V ? logits[j] : -INFINITY; });
    }
    const auto logit_at = [&](int slot, int j) { return kKeeps ? kept[slot] : logits[j]; };
    // Skips NaN; the sum of exponentials then is NaN.
    float maximum = -INFINITY;
    for_each([&](int slot, int j) { maximum = fmaxf(maximum, logit_at(slot, j)); });
    maximum = team.max(maximum);

    float sum = 0.0F;
    bool earlier = false;  // an equal largest logit precedes the target: the first one wins
    for_each([&](int slot, int j) {
      const float logit = logit_at(slot, j);
      const float exponential = expf(logit - maximum);
      if constexpr (kKeeps) kept[slot] = exponential;
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
    for_each([&](int slot, int j) {
      const float exponential = kKeeps ? kept[slot] : expf(logits[j] - maximum);
      if (kKeeps && j >= V) return;
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
  for (unsigned block = threadIdx.x; block < gridDim.x; block += Shares::kThreads) {
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

template <class Shares>
void launch(const CrossEntropy<float>& args) {
  using vla_bench::cuda::StreamContext;
  StreamContext& gpu = vla_bench::cuda::stream_context();
  constexpr Index kRows = Shares::kRows;
  const Index blocks = std::min((args.logits.rows + kRows - 1) / kRows, kMostBlocks);
  const Index mean_rows = args.mean_rows > 0 ? args.mean_rows : args.logits.rows;
  auto* memory = static_cast<char*>(
      gpu.scratch(gpu.stream(), StreamContext::kCounterBytes + blocks * sizeof(BlockLoss)));
  cross_entropy_kernel<Shares>
      <<<static_cast<unsigned>(blocks), Shares::kThreads, 0, gpu.stream()>>>(
          args, static_cast<float>(1.0 / static_cast<double>(mean_rows)),
          reinterpret_cast<BlockLoss*>(memory + StreamContext::kCounterBytes),
          reinterpret_cast<unsigned*>(memory));
  VLA_CUDA_LAUNCHED("cross_entropy");
}

}  // namespace

void cross_entropy(const Context&, const CrossEntropy<float>& args) {
  if (args.logits.cols <= kMostLogitsOfWarp) {
    launch<ShortRows>(args);
  } else if (args.logits.cols <= kMostLogitsKept) {
    launch<KeptRows>(args);
  } else {
    launch<LongRows>(args);
  }
}

}  // namespace vla_bench::ops::cuda
