// Synthetic sequences that depend only on (seed, stream, index, row).
#pragma once

#include <memory>
#include <string>

#include "config/config.h"
#include "core/array.h"
#include "core/rng.h"
#include "ops/ops.h"

namespace vla_bench {

struct Batch {
  Index batch = 0;              // B
  Index tokens = 0;             // T
  Array<std::int32_t> inputs;   // (B, T)
  Array<std::int32_t> targets;  // (B, T), kIgnoreTarget at positions that the loss ignores
  // The positions b * T + t with a target, ascending, and their targets: what the head reads.
  Array<std::int32_t> target_rows;    // (count)
  Array<std::int32_t> target_tokens;  // (count)

  /// Fills the last two from `targets`; only for batches on the CPU.
  void index_targets();
};

/// Makes batches of a config's rows (row_kind) on one device. Every device makes the same bits.
class BatchMaker {
 public:
  BatchMaker(const Context& context, const RunConfig& config);
  ~BatchMaker();

  /// Makes the batch of `stream` number *index (training step or evaluation batch) and increments
  /// *index, which is in device memory and read when the work runs. Runs on a side stream: the
  /// batch is ready after ops::join_side_streams.
  void make_next(RngStream stream, Index* index, Index batch_size, Batch& batch);

  class Implementation {  // on a GPU
   public:
    virtual ~Implementation() = default;
    virtual void make_next(RngStream stream, Index* index, Batch& batch) = 0;
  };

 private:
  Context context_;
  const RunConfig config_;
  std::unique_ptr<Implementation> on_gpu_;
};

/// Makes one batch on the CPU.
void make_batch(const RunConfig& config, RngStream stream, Index index, Index batch_size,
                Batch& batch);

/// Returns one row as readable text: tokens with their roles and the targets beneath, in lines of
/// at most `width` characters (but at least one position each).
std::string describe_row(const RunConfig& config, const Batch& batch, Index row, Index width);

}  // namespace vla_bench
