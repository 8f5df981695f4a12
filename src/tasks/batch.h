// Synthetic sequences, made from (seed, stream, index, row) alone.
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
  Array<std::int32_t> targets;  // (B, T), kIgnoreTarget where the loss does not look
  // The positions b * T + t that carry a target, ascending, and their targets: what the head reads.
  Array<std::int32_t> target_rows;    // (count)
  Array<std::int32_t> target_tokens;  // (count)

  /// Fills the last two from `targets`; batches on the CPU alone.
  void index_targets();
};

/// Makes batches of a config's rows (row_kind) on one device. The same bits on every device.
class BatchMaker {
 public:
  BatchMaker(const Context& context, const RunConfig& config);
  ~BatchMaker();

  /// Makes the batch that `stream` and *index name (training step or evaluation batch) and adds 1
  /// to *index, which stands in the memory of the device and is read when the work runs. Put aside:
  /// the batch is there after ops::wait_aside.
  void make_next(RngStream stream, Index* index, Index batch_size, Batch& batch);

  class Implementation {  // of a GPU
   public:
    virtual ~Implementation() = default;
    virtual void make_next(RngStream stream, Index* index, Batch& batch) = 0;
  };

 private:
  Context context_;
  const RunConfig config_;
  std::unique_ptr<Implementation> on_gpu_;
};

/// One batch on the CPU.
void make_batch(const RunConfig& config, RngStream stream, Index index, Index batch_size,
                Batch& batch);

/// One row as a person reads it: tokens with their roles and the targets beneath, in lines of at
/// most `width` characters (but at least one position each).
std::string describe_row(const RunConfig& config, const Batch& batch, Index row, Index width);

}  // namespace vla_bench
