// Rows of a batch made by a GPU: what the kernel takes. Internal to tasks.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "config/enums.h"
#include "core/array.h"
#include "core/rng.h"
#include "tasks/rows.h"

namespace vla_bench::tasks {

/// All pointers are to device memory.
struct BatchRows {
  RowKind kind = RowKind::random;
  MqarRow row{};               // of copy and random: all but n_pairs; distinct is the kernel's
  Index curriculum = 0;        // of training batches; see distinct_pairs
  bool random_filler = false;  // zoology
  QuerySlots slots{};          // zoology
  std::uint64_t seed = 0;
  RngStream stream = RngStream::train_batch;
  Index* index = nullptr;        // (1), read when the work runs, and one more after it
  unsigned* finished = nullptr;  // (1), rows that have read the index; 0 before and after
  Index batch = 0;               // B
  Index targets_per_row = 0;
  std::int32_t* inputs = nullptr;         // (B, T)
  std::int32_t* targets = nullptr;        // (B, T)
  std::int32_t* target_rows = nullptr;    // (B, targets_per_row)
  std::int32_t* target_tokens = nullptr;  // (B, targets_per_row)
};

/// Words of global memory that request_rows needs for each row of the batch: none where a row is
/// worked out in shared memory.
Index scratch_words(const BatchRows& rows);

/// Asks `stream` for the rows. scratch: (B, scratch_words), contents unspecified.
void request_rows(cudaStream_t stream, const BatchRows& rows, std::uint32_t* scratch);

}  // namespace vla_bench::tasks
