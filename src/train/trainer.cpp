#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <system_error>

#include "config/read.h"
#include "core/error.h"
#include "core/text.h"
#include "ops/ops.h"
#include "train/checkpoint.h"
#include "train/training_step.h"

namespace vla_bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Calls the user's callback at most ten times a second, or when forced.
class ProgressReporter {
 public:
  ProgressReporter(const std::function<void(const TrainProgress&)>& callback, Index first_step)
      : callback_(callback), first_step_(first_step) {}

  void report(TrainProgress progress, double seconds, bool force) {
    if (!callback_ || (!force && seconds_since(last_) < 0.1)) return;
    last_ = Clock::now();
    progress.steps_per_second =
        seconds > 0.0 ? static_cast<double>(progress.step - first_step_) / seconds : 0.0;
    callback_(progress);
  }

 private:
  const std::function<void(const TrainProgress&)>& callback_;
  Index first_step_;
  Clock::time_point last_ = Clock::now();
};

/// Steps to launch before the host waits for the device: up to the next row of the history, test of
/// stop_accuracy, checkpoint or end. One step on a CPU; on a GPU few enough to stop within a second
/// for any size of the model. `seconds_per_step` is the time of the steps before, 0 before the
/// first.
Index steps_ahead(const Context& context, const TrainConfig& settings, Index step,
                  double seconds_per_step) {
  if (context.device == Device::cpu) return 1;
  constexpr Index kMost = 256;
  constexpr Index kFirst = 4;       // while the time of a step is unknown
  constexpr double kLongest = 1.0;  // seconds between waits
  Index most = kFirst;
  if (seconds_per_step > 0.0) {
    most = static_cast<Index>(std::clamp(kLongest / seconds_per_step, 1.0, double{kMost}));
  }
  const auto until_multiple = [step](Index of) { return of - step % of; };
  Index ahead = std::min({most, settings.steps - step, until_multiple(settings.log_every)});
  if (settings.checkpoint_every > 0) {
    ahead = std::min(ahead, until_multiple(settings.checkpoint_every));
  }
  if (settings.stop_accuracy > 0.0) ahead = std::min(ahead, until_multiple(settings.stop_every));
  return ahead;
}

/// Loads the checkpoint if there is one. Returns why it could not be used; training then starts
/// again at step 0.
template <class T>
std::string resume(const std::filesystem::path& checkpoint, const RunConfig& config,
                   TinyLm<T>& model, OptimiserState<T>& optimiser, TrainOutcome& outcome) {
  std::error_code unknown;
  if (!std::filesystem::exists(checkpoint, unknown) && !unknown) return {};
  std::string reason;
  // Two attempts, since another process on this cell may replace both files between the two reads.
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      load_checkpoint(checkpoint, config, model, optimiser, outcome);
      return {};
    } catch (const BadInput& error) {
      reason = error.what();
    }
  }
  return reason + "; training starts at step 0";
}

std::string divergence(const ops::TrainingState& state) {
  const bool loss = !std::isfinite(state.loss.loss);
  return fmt::format("{} is {} at step {}", loss ? "loss" : "gradient norm",
                     without_nan_sign(loss ? state.loss.loss : state.gradient_norm),
                     state.step + 1);
}

/// Whether the accuracy is tested after `step` steps; not after the last, which ends training
/// anyway.
bool tests_accuracy_at(const TrainConfig& settings, Index step) {
  return settings.stop_accuracy > 0.0 && step > 0 && step < settings.steps &&
         step % settings.stop_every == 0;
}

bool is_set(const std::atomic<bool>* stop) { return stop != nullptr && stop->load(); }

/// The test of train.stop_accuracy.
template <class T>
class StopTest {
 public:
  StopTest(const Context& context, const RunConfig& config, TinyLm<T>& model)
      : settings_(config.train) {
    if (settings_.stop_accuracy == 0.0) return;
    evaluation_.emplace(context, config, model, RngStream::stop_batch);
  }

  /// Where a test is due sets outcome.stopped, or outcome.interrupted when *stop was set meanwhile:
  /// then nothing is decided.
  void run(TrainOutcome& outcome, const std::atomic<bool>* stop) {
    if (!tests_accuracy_at(settings_, outcome.steps_done)) return;
    const LossResult reached = mean_of(evaluation_->run(stop));
    outcome.interrupted = is_set(stop);
    outcome.stopped = !outcome.interrupted && reached.accuracy >= settings_.stop_accuracy;
  }

 private:
  const TrainConfig& settings_;
  std::optional<Evaluation<T>> evaluation_;
};

HistoryRow history_row(const ops::TrainingState& state) {
  const auto count = static_cast<double>(state.loss.count);
  return {.step = state.step,
          .loss = state.loss.loss / count,
          .accuracy = static_cast<double>(state.loss.correct) / count,
          .lr = state.learning_rate,
          .gradient_norm = state.gradient_norm};
}

}  // namespace

Schedule schedule_of(const TrainConfig& config) {
  return {
      .peak = config.lr, .warmup = config.warmup, .steps = config.steps, .every = config.lr_every};
}

template <class T>
OptimiserState<T>::OptimiserState(const Context& context, Index parameters)
    : first_moment(context.device, parameters),
      second_moment(context.device, parameters),
      training(context.device, 1) {}

template <class T>
ops::TrainingState OptimiserState<T>::read() const {
  ops::TrainingState state;
  device_copy(Device::cpu, &state, training.device(), training.data(), sizeof(state));
  return state;
}

template <class T>
void OptimiserState<T>::write(const ops::TrainingState& state) {
  device_copy(training.device(), training.data(), Device::cpu, &state, sizeof(state));
}

template <class T>
void request_optimiser_step(const Context& context, const TrainConfig& config, TinyLm<T>& model,
                            OptimiserState<T>& optimiser) {
  ops::optimiser_step<T>(context, {.parameters = model.values().data(),
                                   .gradients = model.gradients().data(),
                                   .first_moment = optimiser.first_moment.data(),
                                   .second_moment = optimiser.second_moment.data(),
                                   .count = model.values().size(),
                                   .schedule = schedule_of(config),
                                   .beta1 = config.beta1,
                                   .beta2 = config.beta2,
                                   .epsilon = config.adam_eps,
                                   .weight_decay = config.weight_decay,
                                   .clip_norm = config.clip_norm,
                                   .state = optimiser.training.data()});
}

template <class T>
TrainOutcome train(const Context& context, const RunConfig& config, TinyLm<T>& model,
                   const std::filesystem::path& checkpoint,
                   const std::function<void(const TrainProgress&)>& progress,
                   const std::atomic<bool>* stop) {
  const TrainConfig& settings = config.train;
  TrainOutcome outcome;
  OptimiserState<T> optimiser(context, model.values().size());
  const bool keeps = !checkpoint.empty();
  if (keeps) outcome.warning = resume(checkpoint, config, model, optimiser, outcome);
  outcome.steps_done = optimiser.read().step;
  const auto is_done = [&] { return outcome.stopped || outcome.steps_done == settings.steps; };
  bool is_saved = true;  // what is done by now
  const auto save = [&] {
    save_checkpoint(checkpoint, config, model, optimiser, outcome);
    is_saved = true;
  };

  if (!is_done()) {
    // Before the step, whose captured graphs need all buffers at their largest size.
    StopTest<T> stop_test(context, config, model);
    TrainingStep<T> training_step(context, config, model, optimiser);
    ProgressReporter reporter(progress, outcome.steps_done);
    const double seconds_before = outcome.train_seconds;
    double seconds_per_step = 0.0;
    stop_test.run(outcome, stop);  // the run before may have been interrupted in it
    if (outcome.stopped) is_saved = false;
    while (!is_done() && !outcome.interrupted) {
      const Clock::time_point start = Clock::now();
      const Index ahead = steps_ahead(context, settings, outcome.steps_done, seconds_per_step);
      for (Index i = 0; i < ahead; ++i) training_step.request();
      const ops::TrainingState state = optimiser.read();
      const double seconds = seconds_since(start);
      outcome.train_seconds += seconds;
      seconds_per_step = seconds / static_cast<double>(ahead);
      outcome.steps_done = state.step;
      is_saved = false;
      if (state.diverged) {
        outcome.diverged = true;
        outcome.reason = divergence(state);
        break;
      }
      const Index step = state.step;
      const HistoryRow row = history_row(state);
      stop_test.run(outcome, stop);
      if (step % settings.log_every == 0 || tests_accuracy_at(settings, step) || is_done()) {
        outcome.history.push_back(row);
      }
      reporter.report(
          {.step = step, .steps = settings.steps, .loss = row.loss, .accuracy = row.accuracy},
          outcome.train_seconds - seconds_before, is_done());
      if (is_set(stop)) {
        outcome.interrupted = !is_done();
        break;
      }
      if (keeps && settings.checkpoint_every > 0 && step % settings.checkpoint_every == 0) save();
    }
  }
  if (keeps && !outcome.diverged && !is_saved) save();
  if (outcome.warning.empty()) outcome.warning = model.warning();
  return outcome;
}

/// The batches of one slice. Their indices continue those of the slices before.
template <class T>
struct Evaluation<T>::SliceBatches {
  SliceBatches(const Context& context, const RunConfig& config, Index first)
      : maker(context, config), first_index(first), index(context.device, 1) {
    rewind();
  }
  void rewind() {
    device_copy(index.device(), index.data(), Device::cpu, &first_index, sizeof(first_index));
  }

  BatchMaker maker;
  Batch batch{};
  Index first_index;
  Array<Index> index;  // (1), on the device: index of the next batch
  std::optional<Replay> replay{};
};

template <class T>
Evaluation<T>::Evaluation(const Context& context, const RunConfig& config, TinyLm<T>& model,
                          RngStream stream)
    : context_(context), config_(config), model_(model), stream_(stream), sums_(context.device, 1) {
  for (const Slice& slice : eval_slices(config)) {
    const Index first = static_cast<Index>(slices_.size()) * config.eval.batches;
    slices_.push_back(std::make_unique<SliceBatches>(context, slice.config, first));
    if (context.device == Device::cuda) request_batch(*slices_.back());
  }
  device_wait(context.device);
}

template <class T>
Evaluation<T>::~Evaluation() = default;

template <class T>
void Evaluation<T>::request_batch(SliceBatches& slice) {
  slice.maker.make_next(stream_, slice.index.data(), config_.eval.batch, slice.batch);
  ops::join_side_streams(context_);
  model_.request_loss(slice.batch, sums_.data());
}

template <class T>
LossResult Evaluation<T>::run_slice(SliceBatches& slice, const std::atomic<bool>* stop) {
  double loss = 0.0;
  double correct = 0.0;
  Index count = 0;
  slice.rewind();
  if (!slice.replay)
    slice.replay.emplace(context_.device, [this, &slice] { request_batch(slice); });
  for (Index batch = 0; batch < config_.eval.batches; ++batch) {
    if (stop != nullptr && stop->load()) break;
    slice.replay->run();
    ops::LossSums sums;
    device_copy(Device::cpu, &sums, context_.device, sums_.data(), sizeof(sums));
    const LossResult result = loss_result(sums);
    loss += result.loss * static_cast<double>(result.count);
    correct += result.accuracy * static_cast<double>(result.count);
    count += result.count;
  }
  const auto total = static_cast<double>(count);
  return {.loss = loss / total, .accuracy = correct / total, .count = count};
}

template <class T>
std::vector<LossResult> Evaluation<T>::run(const std::atomic<bool>* stop) {
  std::vector<LossResult> results;
  for (const auto& slice : slices_) results.push_back(run_slice(*slice, stop));
  return results;
}

LossResult mean_of(std::span<const LossResult> slices) {
  LossResult mean;
  for (const LossResult& slice : slices) {
    mean.loss += slice.loss;
    mean.accuracy += slice.accuracy;
    mean.count += slice.count;
  }
  mean.loss /= static_cast<double>(slices.size());
  mean.accuracy /= static_cast<double>(slices.size());
  return mean;
}

#define VLA_INSTANTIATE(T)                                                             \
  template struct OptimiserState<T>;                                                   \
  template void request_optimiser_step(const Context&, const TrainConfig&, TinyLm<T>&, \
                                       OptimiserState<T>&);                            \
  template TrainOutcome train(                                                         \
      const Context&, const RunConfig&, TinyLm<T>&, const std::filesystem::path&,      \
      const std::function<void(const TrainProgress&)>&, const std::atomic<bool>*);     \
  template class Evaluation<T>;
VLA_INSTANTIATE(float)
VLA_INSTANTIATE(double)
#undef VLA_INSTANTIATE

}  // namespace vla_bench
