// One step of training: the gradients of a batch, the optimiser, and the next step's batch.
#pragma once

#include <optional>

#include "train/trainer.h"

namespace vla_bench {

/// Asks the device for the same step again and again; on a GPU the step is recorded once. The first
/// batch is that of the optimiser's step.
template <class T>
class TrainingStep {
 public:
  /// Takes the memory and warms up what a step needs: nothing of that happens while steps run. The
  /// arguments must outlive this.
  TrainingStep(const Context& context, const RunConfig& config, TinyLm<T>& model,
               OptimiserState<T>& optimiser);
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  /// Does not wait.
  void request() { replay_->run(); }

 private:
  void request_step();
  void request_next_batch();

  Context context_;
  const RunConfig& config_;
  TinyLm<T>& model_;
  OptimiserState<T>& optimiser_;
  BatchMaker batches_;
  Array<Index> next_index_;  // (1), on the device: of the batch to be made
  Batch batch_;
  std::optional<Replay> replay_;
};

}  // namespace vla_bench
