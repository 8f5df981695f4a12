// Synthetic sequences, made from (seed, stream, index, row) alone.
#pragma once

#include <string>

#include "config/config.h"
#include "core/array.h"
#include "core/rng.h"

namespace vla_bench {

struct Batch {
  Index batch = 0;              // B
  Index tokens = 0;             // T
  Array<std::int32_t> inputs;   // (B, T)
  Array<std::int32_t> targets;  // (B, T), kIgnoreTarget where the loss does not look
};

/// mqar (paper or zoology layout) and copy, by config.experiment; for state_norm and jacobian
/// uniformly random tokens without targets. `stream` and `index` name the batch (training step or
/// evaluation batch). The batch is on the CPU.
void make_batch(const RunConfig& config, RngStream stream, Index index, Index batch_size,
                Batch& batch);

/// One row as a person reads it: tokens with their roles and the targets beneath.
std::string describe_row(const RunConfig& config, const Batch& batch, Index row);

}  // namespace vla_bench
