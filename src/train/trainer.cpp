#include "train/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "ops/ops.h"
#include "train/checkpoint.h"

namespace vla_bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Calls the user's callback at most ten times a second, and whenever forced.
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

}  // namespace

template <class T>
double optimiser_step(const Context& context, const TrainConfig& config, TinyLm<T>& model,
                      OptimiserState<T>& optimiser) {
  const Index count = model.values().size();
  optimiser.first_moment.resize(context.device, count);
  optimiser.second_moment.resize(context.device, count);
  const double norm = ops::norm<T>(context, model.gradients().data(), count);
  if (!std::isfinite(norm)) return norm;
  const double lr = learning_rate(config, optimiser.step);
  ++optimiser.step;
  ops::adamw_step<T>(context, {.parameters = model.values().data(),
                               .gradients = model.gradients().data(),
                               .first_moment = optimiser.first_moment.data(),
                               .second_moment = optimiser.second_moment.data(),
                               .count = count,
                               .lr = lr,
                               .beta1 = config.beta1,
                               .beta2 = config.beta2,
                               .epsilon = config.adam_eps,
                               .weight_decay = config.weight_decay,
                               .gradient_scale = clip_factor(norm, config.clip_norm),
                               .step = optimiser.step});
  return norm;
}

template <class T>
TrainOutcome train(const Context& context, const RunConfig& config, TinyLm<T>& model,
                   const std::filesystem::path& checkpoint,
                   const std::function<void(const TrainProgress&)>& progress,
                   const std::atomic<bool>* stop) {
  const TrainConfig& settings = config.train;
  TrainOutcome outcome;
  OptimiserState<T> optimiser;
  const bool keeps = !checkpoint.empty();
  if (keeps && std::filesystem::exists(checkpoint)) {
    load_checkpoint(checkpoint, config, model, optimiser, outcome.history, outcome.train_seconds);
  }
  const auto save = [&] {
    save_checkpoint(checkpoint, config, model, optimiser, outcome.history, outcome.train_seconds);
  };

  ProgressReporter reporter(progress, optimiser.step);
  const double seconds_before = outcome.train_seconds;
  Index saved_step = optimiser.step;
  Batch batch;
  while (optimiser.step < settings.steps) {
    const Clock::time_point start = Clock::now();
    const double lr = learning_rate(settings, optimiser.step);
    make_batch(config, RngStream::train_batch, optimiser.step, settings.batch, batch);
    const LossResult result = model.forward_backward(batch);
    const double norm = std::isfinite(result.loss)
                            ? optimiser_step(context, settings, model, optimiser)
                            : result.loss;
    outcome.train_seconds += seconds_since(start);
    if (!std::isfinite(norm)) {
      outcome.diverged = true;
      outcome.reason =
          fmt::format("{} is {} at step {}", std::isfinite(result.loss) ? "gradient norm" : "loss",
                      norm, optimiser.step + 1);
      break;
    }
    const Index step = optimiser.step;
    const bool last = step == settings.steps;
    if (step % settings.log_every == 0 || last) {
      outcome.history.push_back({.step = step,
                                 .loss = result.loss,
                                 .accuracy = result.accuracy,
                                 .lr = lr,
                                 .gradient_norm = norm});
    }
    reporter.report(
        {.step = step, .steps = settings.steps, .loss = result.loss, .accuracy = result.accuracy},
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
  outcome.steps_done = optimiser.step;
  if (keeps && !outcome.diverged && saved_step != optimiser.step) save();
  return outcome;
}

template <class T>
LossResult evaluate(const RunConfig& config, TinyLm<T>& model) {
  double loss = 0.0;
  double correct = 0.0;
  Index count = 0;
  Batch batch;
  for (Index index = 0; index < config.eval.batches; ++index) {
    make_batch(config, RngStream::eval_batch, index, config.eval.batch, batch);
    const LossResult result = model.evaluate(batch);
    loss += result.loss * static_cast<double>(result.count);
    correct += result.accuracy * static_cast<double>(result.count);
    count += result.count;
  }
  const auto total = static_cast<double>(count);
  return {.loss = loss / total, .accuracy = correct / total, .count = count};
}

#define VLA_INSTANTIATE(T)                                                         \
  template double optimiser_step(const Context&, const TrainConfig&, TinyLm<T>&,   \
                                 OptimiserState<T>&);                              \
  template TrainOutcome train(                                                     \
      const Context&, const RunConfig&, TinyLm<T>&, const std::filesystem::path&,  \
      const std::function<void(const TrainProgress&)>&, const std::atomic<bool>*); \
  template LossResult evaluate(const RunConfig&, TinyLm<T>&);
VLA_INSTANTIATE(float)
VLA_INSTANTIATE(double)
#undef VLA_INSTANTIATE

}  // namespace vla_bench
