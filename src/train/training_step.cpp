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
      batches_(context, config),
      next_index_(context.device, 1) {
  const Index first = optimiser.read().step;
  device_copy(context.device, next_index_.data(), Device::cpu, &first, sizeof(first));
  request_next_batch();
  ops::join_side_streams(context);
  // Everything except the update, to warm up.
  model_.request_gradients(batch_, &optimiser_.training.data()->loss);
  ops::join_side_streams(context);
  device_wait(context.device);
  replay_.emplace(context.device, [this] { request_step(); });
}

template <class T>
void TrainingStep<T>::request_next_batch() {
  batches_.make_next(RngStream::train_batch, next_index_.data(), config_.train.batch, batch_);
}

// Nothing reads the batch after the gradients, so the next one is made beside the update.
template <class T>
void TrainingStep<T>::request_step() {
  model_.request_gradients(batch_, &optimiser_.training.data()->loss);
  request_next_batch();
  request_optimiser_step(context_, config_.train, model_, optimiser_);
  ops::join_side_streams(context_);
}

template class TrainingStep<float>;
template class TrainingStep<double>;

}  // namespace vla_bench
