// One training step: the gradients of a batch, the optimiser, and the next step's batch.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "config/read.h"
#include "core/run_ahead.h"
#include "train/trainer.h"

namespace vla_bench {

/// Runs step after step from that of the optimiser on. Every size of rows has its own batches; the
/// memory of the model is that of the largest. On a GPU a step is captured as a CUDA graph, once
/// for each size and size of the next step that occur: the next step's batch is made beside the
/// update.
template <class T>
class TrainingStep {
 public:
  /// Allocates the memory of all sizes and warms up, so that steps do neither: no other work may
  /// make the model's buffers grow while this object lives. The arguments must outlive it.
  TrainingStep(const Context& context, const RunConfig& config, TinyLm<T>& model,
               OptimiserState<T>& optimiser);
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  /// Launches one step; waits only to stay at most two steps ahead of the device.
  void request();

 private:
  /// The batches of one size.
  struct Batches {
    Batches(const Context& context, const RunConfig& config) : maker(context, config) {}

    BatchMaker maker;
    Batch ready{};  // of the next step of this size
  };

  void warm_up(Batches& batches);
  void request_step(Batches& now, Batches& next);
  void request_batch(Batches& batches);

  Context context_;
  const RunConfig& config_;
  TinyLm<T>& model_;
  OptimiserState<T>& optimiser_;
  TrainSizes sizes_;
  std::vector<std::unique_ptr<Batches>> batches_;  // (sizes_.configs())
  Index step_;                                     // of the next request
  Array<Index> next_index_;                        // (1), on the device: index of the next batch
  std::map<std::pair<std::size_t, std::size_t>, Replay> replays_;  // by size and next step's size
  RunAhead run_ahead_;
};

}  // namespace vla_bench
