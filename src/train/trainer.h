// The training loop: fresh data every step, clipping, AdamW, warm-up and cosine, stopping at an
// accuracy, checkpoints.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/tiny_lm.h"

namespace vla_bench {

Schedule schedule_of(const TrainConfig& config);

struct HistoryRow {
  Index step = 0;                                                    // from 1: steps done
  double loss = 0.0, accuracy = 0.0, lr = 0.0, gradient_norm = 0.0;  // of that step's batch
};

struct TrainProgress {
  Index step = 0, steps = 0;
  double loss = 0.0, accuracy = 0.0;
  double steps_per_second = 0.0;
};

/// The optimiser's state, on the model's device.
template <class T>
struct OptimiserState {
  Array<T> first_moment, second_moment;  // flat, table order
  Array<ops::TrainingState> training;    // (1)

  OptimiserState(const Context& context, Index parameters);
  /// Waits for the device and returns the state.
  ops::TrainingState read() const;
  void write(const ops::TrainingState& state);
};

/// Launches one optimiser step on gradients() of the model; see ops::optimiser_step.
template <class T>
void request_optimiser_step(const Context& context, const TrainConfig& config, TinyLm<T>& model,
                            OptimiserState<T>& optimiser);

/// What a run and all that it resumed have recorded.
struct TrainLog {
  // Every log_every steps, at tests of stop_accuracy and at the last step.
  std::vector<HistoryRow> history{};
  double train_seconds = 0.0;  // only training steps
  bool stopped = false;        // stop_accuracy was reached: no step is left
};

struct TrainOutcome : TrainLog {
  bool diverged = false;     // a loss or gradient norm was not finite
  bool interrupted = false;  // *stop was set; a checkpoint was written
  std::string reason;        // "loss is nan at step 17"
  // Why the checkpoint could not be used and training began at step 0, or what the model's mixers
  // have to say.
  std::string warning;
  Index steps_done = 0;
};

/// Trains as the config says (config.train, config.task, config.seeds[0]). Resumes from
/// `checkpoint` when it exists (history and seconds included), or starts at step 0 when it cannot
/// be used, and reaches the same bits as an uninterrupted run. Writes it every checkpoint_every
/// steps and at the end (empty path: never). `stop` may be null. Calls `progress` at most 10 times
/// a second and at the last step.
template <class T>
TrainOutcome train(const Context& context, const RunConfig& config, TinyLm<T>& model,
                   const std::filesystem::path& checkpoint,
                   const std::function<void(const TrainProgress&)>& progress,
                   const std::atomic<bool>* stop);

/// Evaluates a model on config.eval's fresh batches of each slice (config/read.h). On a GPU a batch
/// of a slice is a CUDA graph, captured when the first is needed.
template <class T>
class Evaluation {
 public:
  /// Batches are those of `stream`. On a GPU it allocates the memory of all slices and warms up, so
  /// that nothing that is captured later moves. The arguments must outlive this object.
  Evaluation(const Context& context, const RunConfig& config, TinyLm<T>& model, RngStream stream);
  ~Evaluation();

  /// Returns mean loss and accuracy of each slice, or over those batches begun before *stop was set
  /// (`stop` may be null).
  std::vector<LossResult> run(const std::atomic<bool>* stop = nullptr);

 private:
  struct SliceBatches;

  void request_batch(SliceBatches& slice);
  LossResult run_slice(SliceBatches& slice, const std::atomic<bool>* stop);

  Context context_;
  const RunConfig& config_;
  TinyLm<T>& model_;
  RngStream stream_;
  std::vector<std::unique_ptr<SliceBatches>> slices_;
  Array<ops::LossSums> sums_;  // (1), on the device
};

/// Means over slices, each with the same weight; the sum of counts.
LossResult mean_of(std::span<const LossResult> slices);

}  // namespace vla_bench
