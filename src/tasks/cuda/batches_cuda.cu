// One warp per row. All its threads make the row's draws in advance and prepare the pools that the
// row is drawn from; thread 0 then runs the same function as the CPU, on shared memory; all threads
// write the row out.
//
// At the published size (64 rows, T = 73, V = 128) 64 multiprocessors work for as long as one
// thread takes for 24 swaps and 49 tokens, each a few dependent reads of shared memory (30 cycles):
// about 5,000 cycles, 3 us; the draws and writing the rows add 1 us. The zoology layout at n = 64,
// T = 512 takes about 30 us, most of them in 64 walks down and up the tree of weights.
#include <cuda_runtime.h>

#include "config/curriculum.h"
#include "core/cuda/check.h"
#include "core/cuda/warp.h"
#include "tasks/cuda/batches_cuda.h"

namespace vla_bench::tasks {
namespace {

constexpr unsigned kAllThreads = 0xFFFFFFFFU;
/// Shared memory that a thread block has by default.
constexpr Index kMostSharedWords = 48 * 1024 / sizeof(std::uint32_t);
constexpr std::int32_t kDrawsOfBlock = 4;  // draws per block of the generator

/// Offsets of the parts of a row's working memory, in words of 4 bytes. Draws come first.
struct RowMemory {
  Index keys, values, tree, inputs, targets;
  Index words;  // in total
};

RowMemory memory_of(const BatchRows& rows) {
  const Index V = rows.row.vocab;
  const Index T = rows.row.tokens;
  const bool paper = rows.kind == RowKind::paper;
  const bool zoology = rows.kind == RowKind::zoology;
  RowMemory memory{};
  // No row makes more than T draws.
  Index next = (T + kDrawsOfBlock - 1) / kDrawsOfBlock * kDrawsOfBlock;
  const auto take = [&next](Index words) {
    const Index first = next;
    next += words;
    return first;
  };
  memory.keys = take(paper ? V - 1 : zoology ? V / 2 - 1 : 0);
  memory.values = take(zoology ? V - V / 2 : 0);
  memory.tree = take(zoology ? rows.slots.count : 0);
  memory.inputs = take(T);
  memory.targets = take(T);
  memory.words = next;
  return memory;
}

/// Returns draws made in advance, in order.
class DrawsAhead {
 public:
  __device__ explicit DrawsAhead(const std::uint32_t* draws) : next_(draws) {}
  __device__ std::uint32_t below(std::uint32_t n) { return scale_below(*next_++, n); }

 private:
  const std::uint32_t* next_;
};

__device__ inline int set_below(unsigned mask, int thread) {
  return __popc(mask & ((1U << thread) - 1U));
}

/// fill_free_positions by all threads of a warp: the free position of rank r gets draw r.
__device__ void fill_free_by_warp(const BatchRows& rows, const std::uint32_t* draws,
                                  std::int32_t* inputs) {
  const int thread = static_cast<int>(threadIdx.x);
  for (std::int32_t first = written_tokens(rows.row); first < rows.row.tokens; first += kWarp) {
    const std::int32_t t = first + thread;
    const bool is_free = t < rows.row.tokens && inputs[t] < 0;
    const unsigned mask = __ballot_sync(kAllThreads, is_free);
    if (is_free) {
      const auto count = static_cast<std::uint32_t>(rows.filler.count);
      const std::uint32_t drawn = scale_below(draws[set_below(mask, thread)], count);
      inputs[t] = rows.filler.first + static_cast<std::int32_t>(drawn);
    }
    draws += __popc(mask);
  }
}

/// Copies a row to the batch and lists the positions that carry a target, in ascending order.
__device__ void write_row(const BatchRows& rows, Index b, const std::int32_t* inputs,
                          const std::int32_t* targets) {
  const int thread = static_cast<int>(threadIdx.x);
  const std::int32_t T = rows.row.tokens;
  Index slot = b * rows.targets_per_row;
  for (std::int32_t first = 0; first < T; first += kWarp) {
    const std::int32_t t = first + thread;
    const std::int32_t target = t < T ? targets[t] : rows.row.ignore;
    const bool carries = target != rows.row.ignore;
    const unsigned mask = __ballot_sync(kAllThreads, carries);
    if (t < T) {
      rows.inputs[b * T + t] = inputs[t];
      rows.targets[b * T + t] = target;
    }
    if (carries) {
      const Index own = slot + set_below(mask, thread);
      rows.target_rows[own] = static_cast<std::int32_t>(b * T + t);
      rows.target_tokens[own] = target;
    }
    slot += __popc(mask);
  }
}

__global__ void __launch_bounds__(kWarp)
    make_rows_kernel(BatchRows rows, RowMemory memory, std::uint32_t* scratch) {
  extern __shared__ std::uint32_t shared[];
  const Index b = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  std::uint32_t* words = scratch != nullptr ? scratch + b * memory.words : shared;
  const auto tokens_at = [words](Index word) {
    return reinterpret_cast<std::int32_t*>(words + word);
  };
  std::uint32_t* draws = words;
  std::int32_t* keys = tokens_at(memory.keys);
  std::int32_t* inputs = tokens_at(memory.inputs);
  std::int32_t* targets = tokens_at(memory.targets);
  const ZoologyPools pools{
      .keys = keys, .values = tokens_at(memory.values), .tree = words + memory.tree};
  const Share share{.first = thread, .step = kWarp};
  const Index index = *rows.index;
  MqarRow row = rows.row;
  row.distinct = distinct_pairs(row.n_pairs, rows.curriculum, index);

  const Rng rng(rows.seed, rows.stream, static_cast<std::uint32_t>(index),
                static_cast<std::uint32_t>(b));
  for (std::int32_t block = thread; block * kDrawsOfBlock < row.tokens; block += kWarp) {
    rng.draw_block(static_cast<std::uint32_t>(block), draws + block * kDrawsOfBlock);
  }
  if (rows.kind == RowKind::paper) fill_counting(share, 0, row.vocab - 1, keys);
  if (rows.kind == RowKind::zoology) {
    start_zoology_row(share, row, rows.slots, pools, inputs, targets);
  }
  __syncwarp();

  if (thread == 0) {
    DrawsAhead ahead(draws);
    switch (rows.kind) {
      case RowKind::paper:
        mqar_paper_row(ahead, row, keys, inputs, targets);
        break;
      case RowKind::zoology:
        mqar_zoology_row(ahead, row, rows.slots, pools, inputs, targets);
        break;
      case RowKind::copy:
        copy_row(ahead, row.vocab, row.tokens, row.ignore, inputs, targets);
        break;
      case RowKind::random:
        random_row(ahead, row.vocab, row.tokens, row.ignore, inputs, targets);
        break;
    }
  }
  __syncwarp();
  if (rows.kind == RowKind::zoology) {
    fill_free_by_warp(rows, draws + zoology_draws(row), inputs);
    __syncwarp();
  }
  write_row(rows, b, inputs, targets);
  if (thread == 0) {
    __threadfence();
    if (atomicAdd(rows.finished, 1U) == gridDim.x - 1) {
      *rows.finished = 0;
      ++*rows.index;
    }
  }
}

bool fits_shared_memory(const RowMemory& memory) { return memory.words <= kMostSharedWords; }

}  // namespace

Index scratch_words(const BatchRows& rows) {
  const RowMemory memory = memory_of(rows);
  return fits_shared_memory(memory) ? 0 : memory.words;
}

void request_rows(cudaStream_t stream, const BatchRows& rows, std::uint32_t* scratch) {
  if (rows.batch == 0) return;
  const RowMemory memory = memory_of(rows);
  const bool shared = fits_shared_memory(memory);
  const std::size_t shared_bytes = shared ? memory.words * sizeof(std::uint32_t) : 0;
  make_rows_kernel<<<static_cast<unsigned>(rows.batch), kWarp, shared_bytes, stream>>>(
      rows, memory, shared ? nullptr : scratch);
  VLA_CUDA_LAUNCHED("make_rows");
}

}  // namespace vla_bench::tasks
