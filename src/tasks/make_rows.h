// The CPU's loop over the rows of a batch of mqar. Internal to tasks.
#pragma once

#include "tasks/batch.h"

namespace vla_bench {

/// Identifies the draws of a batch; each row has its own sequence.
struct RowDraws {
  std::uint64_t seed;
  RngStream stream;
  std::uint32_t index;

  Rng row(Index b) const { return {seed, stream, index, static_cast<std::uint32_t>(b)}; }
};

/// Fills inputs and targets, both (B, T), of a batch whose sizes are set.
void make_mqar_rows(const RunConfig& config, const RowDraws& draws, Batch& batch);

}  // namespace vla_bench
