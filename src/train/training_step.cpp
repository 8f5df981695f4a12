#include "train/training_step.h"

#include "ops/ops.h"

namespace vla_bench {

template <class T>
TrainingStep<T>::TrainingStep(const Context& context, const RunConfig& config, TinyLm<T>& model,
                              OptimiserState<T>& optimiser)
    : context_(context),
      config_(config),
      model_(model),
      optimiser_(optimiser),
      sizes_(config),
      step_(optimiser.read().step),
      next_index_(context.device, 1),
      run_ahead_(context.device) {
  for (const RunConfig& sized : sizes_.configs()) {
    batches_.push_back(std::make_unique<Batches>(context, sized));
  }
  // The first step's size last: its batch stays.
  const std::size_t first = sizes_.at(step_);
  for (std::size_t size = 0; size < batches_.size(); ++size) {
    if (size != first) warm_up(*batches_[size]);
  }
  warm_up(*batches_[first]);
}

/// Makes the batch of the next step in this size and runs everything except the update.
template <class T>
void TrainingStep<T>::warm_up(Batches& batches) {
  device_copy(context_.device, next_index_.data(), Device::cpu, &step_, sizeof(step_));
  request_batch(batches);
  ops::join_side_streams(context_);
  model_.request_gradients(batches.ready, &optimiser_.training.data()->loss);
  ops::join_side_streams(context_);
  device_wait(context_.device);
}

template <class T>
void TrainingStep<T>::request() {
  const std::pair sizes(sizes_.at(step_), sizes_.at(step_ + 1));
  ++step_;
  auto replay = replays_.find(sizes);
  if (replay == replays_.end()) {
    const auto work = [this, &now = *batches_[sizes.first], &next = *batches_[sizes.second]] {
      request_step(now, next);
    };
    replay = replays_.try_emplace(sizes, context_.device, work).first;
  }
  replay->second.run();
  run_ahead_.launched();
}

template <class T>
void TrainingStep<T>::request_batch(Batches& batches) {
  batches.maker.make_next(RngStream::train_batch, next_index_.data(), config_.train.batch,
                          batches.ready);
}

// Nothing reads the batch after the gradients, so the next one is made beside the update.
template <class T>
void TrainingStep<T>::request_step(Batches& now, Batches& next) {
  model_.request_gradients(now.ready, &optimiser_.training.data()->loss);
  request_batch(next);
  request_optimiser_step(context_, config_.train, model_, optimiser_);
  ops::join_side_streams(context_);
}

template class TrainingStep<float>;
template class TrainingStep<double>;

}  // namespace vla_bench
