// One training step: the gradients of a batch, the optimiser, and the next step's batch.
#pragma once

#include <optional>

#include "train/trainer.h"

namespace vla_bench {

/// Runs the same step again and again; on a GPU it is captured once as a CUDA graph. The first
/// batch is that of the optimiser's step.
template <class T>
class TrainingStep {
 public:
  /// Allocates a step's memory and warms up, so that steps do neither. The arguments must outlive
  /// this object.
  TrainingStep(const Context& context, const RunConfig& config, TinyLm<T>& model,
               OptimiserState<T>& optimiser);
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  /// Launches one step; does not wait.
  void request() { replay_->run(); }

 private:
  void request_step();
  void request_next_batch();

  Context context_;
  const RunConfig& config_;
  TinyLm<T>& model_;
  OptimiserState<T>& optimiser_;
  BatchMaker batches_;
  Array<Index> next_index_;  // (1), on the device: index of the next batch
  Batch batch_;
  std::optional<Replay> replay_;
};

}  // namespace vla_bench
