#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <system_error>

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

/// Steps to launch before the host waits for the device: up to the next row of the history,
/// checkpoint or end. One step on a CPU; on a GPU few enough to stop within a second for any size
/// of the model. `seconds_per_step` is the time of the steps before, 0 before the first.
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
      load_checkpoint(checkpoint, config, model, optimiser, outcome.history, outcome.train_seconds);
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

}  // namespace

Schedule schedule_of(const TrainConfig& config) {
  return {.peak = config.lr, .warmup = config.warmup, .steps = config.steps};
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
  const auto save = [&] {
    save_checkpoint(checkpoint, config, model, optimiser, outcome.history, outcome.train_seconds);
  };

  outcome.steps_done = optimiser.read().step;
  Index saved_step = outcome.steps_done;
  if (outcome.steps_done < settings.steps) {
    TrainingStep<T> training_step(context, config, model, optimiser);
    ProgressReporter reporter(progress, outcome.steps_done);
    const double seconds_before = outcome.train_seconds;
    double seconds_per_step = 0.0;
    while (outcome.steps_done < settings.steps) {
      const Clock::time_point start = Clock::now();
      const Index ahead = steps_ahead(context, settings, outcome.steps_done, seconds_per_step);
      for (Index i = 0; i < ahead; ++i) training_step.request();
      const ops::TrainingState state = optimiser.read();
      const double seconds = seconds_since(start);
      outcome.train_seconds += seconds;
      seconds_per_step = seconds / static_cast<double>(ahead);
      outcome.steps_done = state.step;
      if (state.diverged) {
        outcome.diverged = true;
        outcome.reason = divergence(state);
        break;
      }
      const Index step = state.step;
      const bool last = step == settings.steps;
      const auto count = static_cast<double>(state.loss.count);
      const HistoryRow row{.step = step,
                           .loss = state.loss.loss / count,
                           .accuracy = static_cast<double>(state.loss.correct) / count,
                           .lr = state.learning_rate,
                           .gradient_norm = state.gradient_norm};
      if (step % settings.log_every == 0 || last) outcome.history.push_back(row);
      reporter.report(
          {.step = step, .steps = settings.steps, .loss = row.loss, .accuracy = row.accuracy},
          outcome.train_seconds - seconds_before, last);
      if (stop != nullptr && stop->load()) {
        outcome.interrupted = !last;
        break;
      }
      if (keeps && settings.checkpoint_every > 0 && step % settings.checkpoint_every == 0) {
        save();
        saved_step = step;
      }
    }
  }
  if (keeps && !outcome.diverged && saved_step != outcome.steps_done) save();
  return outcome;
}

template <class T>
LossResult evaluate(const Context& context, const RunConfig& config, TinyLm<T>& model,
                    const std::atomic<bool>* stop) {
  double loss = 0.0;
  double correct = 0.0;
  Index count = 0;
  BatchMaker batches(context, config);
  Batch batch;
  Array<Index> position(context.device, 1);  // starts at 0
  for (Index index = 0; index < config.eval.batches; ++index) {
    if (stop != nullptr && stop->load()) break;
    batches.make_next(RngStream::eval_batch, position.data(), config.eval.batch, batch);
    ops::join_side_streams(context);
    const LossResult result = model.evaluate(batch);
    loss += result.loss * static_cast<double>(result.count);
    correct += result.accuracy * static_cast<double>(result.count);
    count += result.count;
  }
  const auto total = static_cast<double>(count);
  return {.loss = loss / total, .accuracy = correct / total, .count = count};
}

#define VLA_INSTANTIATE(T)                                                             \
  template struct OptimiserState<T>;                                                   \
  template void request_optimiser_step(const Context&, const TrainConfig&, TinyLm<T>&, \
                                       OptimiserState<T>&);                            \
  template TrainOutcome train(                                                         \
      const Context&, const RunConfig&, TinyLm<T>&, const std::filesystem::path&,      \
      const std::function<void(const TrainProgress&)>&, const std::atomic<bool>*);     \
  template LossResult evaluate(const Context&, const RunConfig&, TinyLm<T>&,           \
                               const std::atomic<bool>*);
VLA_INSTANTIATE(float)
VLA_INSTANTIATE(double)
#undef VLA_INSTANTIATE

}  // namespace vla_bench
