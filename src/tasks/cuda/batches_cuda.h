// Arguments and launch of the kernel that makes a batch's rows. Internal to tasks.
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
  MqarRow row{};         // of mqar; the kernel sets distinct
  Index curriculum = 0;  // only training batches; see distinct_pairs
  Filler filler{};       // zoology
  QuerySlots slots{};    // zoology
  std::uint64_t seed = 0;
  RngStream stream = RngStream::train_batch;
  Index* index = nullptr;        // (1), read and then incremented when the work runs
  unsigned* finished = nullptr;  // (1), rows that have read the index; 0 before and after
  Index batch = 0;               // B
  Index targets_per_row = 0;
  std::int32_t* inputs = nullptr;         // (B, T)
  std::int32_t* targets = nullptr;        // (B, T)
  std::int32_t* target_rows = nullptr;    // (B, targets_per_row)
  std::int32_t* target_tokens = nullptr;  // (B, targets_per_row)
};

/// Words of global memory that request_rows needs per row of the batch; 0 when a row fits into
/// shared memory.
Index scratch_words(const BatchRows& rows);

/// Launches the kernel on `stream`. scratch: (B, scratch_words), contents unspecified.
void request_rows(cudaStream_t stream, const BatchRows& rows, std::uint32_t* scratch);

}  // namespace vla_bench::tasks
