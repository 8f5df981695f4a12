// Golden files of the whole model: one loss with its gradients, and a short training run.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "golden/comparison.h"
#include "model/tiny_lm.h"
#include "train/trainer.h"

namespace vla_bench {
namespace {

constexpr double kIgnoredTargetInFile = kIgnoreTarget;

// The size of activations is a product of sizes, of which the file's tensors bound only one factor
// each: a small file could claim terabytes. The golden files of the tests have 2^12.
constexpr Index kMostActivations = Index{1} << 28;  // 2 GiB in float64

/// Reads the model's config; checks every parameter's shape before a model of that size is built.
ModelConfig read_model(const GoldenFile& golden) {
  ModelConfig model;
  const Index d_model = read_size(golden, "d_model", 1 << 20);
  model.n_heads = read_size(golden, "n_heads", d_model);
  if (d_model % model.n_heads != 0) {
    throw BadInput(fmt::format("[{}] metadata: d_model {} is not a multiple of n_heads {}",
                               golden.origin, d_model, model.n_heads));
  }
  model.d_h = d_model / model.n_heads;
  model.n_layers = read_size(golden, "n_layers", 256);
  model.d_ff = read_size(golden, "d_ff", 1 << 20);
  model.vocab_size = read_size(golden, "vocab_size", 1 << 24);
  model.max_seq_len = read_size(golden, "max_seq_len", 1 << 24);
  const ParameterTable parameters = tiny_lm_parameters(model, golden.mixer);
  for (const Parameter& parameter : parameters.all()) {
    require_shape(golden, parameter.name, parameter.shape);
  }
  require_constant(golden, "ignore_index", kIgnoredTargetInFile);
  return model;
}

/// Reads the file's tensors `inputs` (tokens) and `targets` as a batch.
Batch read_batch(const GoldenFile& golden, const ModelConfig& model, const std::string& inputs,
                 const std::string& targets) {
  Batch batch;
  batch.batch = read_size(golden, "B", 1 << 20);
  batch.tokens = read_size(golden, "T", model.max_seq_len);
  const std::array<Index, 2> shape = {batch.batch, batch.tokens};
  const auto read = [&](const std::string& name, bool is_target, Array<std::int32_t>& out) {
    const std::vector<Index> values = golden.tensors.values<Index>(name, shape);
    out.resize(Device::cpu, static_cast<Index>(values.size()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const bool ignored = is_target && values[i] == kIgnoreTarget;
      if (!ignored && (values[i] < 0 || values[i] >= model.vocab_size)) {
        throw BadInput(fmt::format("[{}] {}: expected tokens of 0 .. {}, got {} at {}",
                                   golden.origin, name, model.vocab_size - 1, values[i], i));
      }
      out[static_cast<Index>(i)] = static_cast<std::int32_t>(values[i]);
    }
  };
  read(inputs, false, batch.inputs);
  read(targets, true, batch.targets);
  batch.index_targets();
  if (batch.target_rows.empty()) {
    throw BadInput(fmt::format("[{}] {}: expected at least one target, every position is ignored",
                               golden.origin, targets));
  }
  const Index widest = std::max({model.vocab_size, model.d_ff, 3 * model.d_model()});
  if (batch.inputs.size() > kMostActivations / widest) {
    throw BadInput(
        fmt::format("[{}] metadata: B * T = {} rows of {} values are more than this "
                    "program verifies ({})",
                    golden.origin, batch.inputs.size(), widest, kMostActivations));
  }
  return batch;
}

TrainConfig read_train(const GoldenFile& golden) {
  TrainConfig train;
  train.steps = read_size(golden, "steps", 1 << 20);
  train.warmup = golden.tensors.integer("warmup");
  if (train.warmup < 0 || train.warmup > train.steps) {
    throw BadInput(fmt::format("[{}] metadata \"warmup\": expected 0 .. {} (steps), got {}",
                               golden.origin, train.steps, train.warmup));
  }
  train.lr = golden.tensors.number("lr");
  train.beta1 = golden.tensors.number("beta1");
  train.beta2 = golden.tensors.number("beta2");
  train.adam_eps = golden.tensors.number("adam_eps");
  train.weight_decay = golden.tensors.number("weight_decay");
  train.clip_norm = golden.tensors.number("clip_norm");
  require_constant(golden, "clip_eps", kClipEpsilon);
  return train;
}

}  // namespace

template <class T>
std::vector<TensorError> verify_model(const GoldenFile& golden, const Context& context,
                                      Implementation implementation) {
  const ModelConfig config = read_model(golden);
  const Batch batch = read_batch(golden, config, "x", "y");
  TinyLm<T> model(config, golden.mixer, context, implementation);
  copy_to_device(read_parameters<T>(golden, model.parameters()), model.values());

  const Index rows = batch.batch * batch.tokens;
  require_shape(golden, "logits", std::array{batch.batch, batch.tokens, config.vocab_size});
  std::vector<T> logits(static_cast<std::size_t>(rows * config.vocab_size));  // (B * T, V)
  model.logits(batch, Matrix<T>(logits.data(), rows, config.vocab_size));
  const LossResult result = model.forward_backward(batch);

  Comparison comparison(golden);
  comparison.add<T>("logits", std::array{batch.batch, batch.tokens, config.vocab_size}, logits);
  comparison.add<double>("loss", std::array{Index{1}}, std::array{result.loss});
  comparison.add_parameters<T>("grad.", model.parameters(), copy_to_host(model.gradients()));
  return comparison.finish();
}

template <class T>
std::vector<TensorError> verify_training(const GoldenFile& golden, const Context& context,
                                         Implementation implementation) {
  const ModelConfig config = read_model(golden);
  const TrainConfig train = read_train(golden);
  TinyLm<T> model(config, golden.mixer, context, implementation);
  copy_to_device(read_parameters<T>(golden, model.parameters()), model.values());

  OptimiserState<T> optimiser(context, model.values().size());
  std::vector<double> loss, gradient_norm, rate;  // (steps)
  for (Index step = 0; step < train.steps; ++step) {
    const Batch batch =
        read_batch(golden, config, fmt::format("x.{}", step), fmt::format("y.{}", step));
    loss.push_back(model.forward_backward(batch).loss);
    request_optimiser_step(context, train, model, optimiser);
    const ops::TrainingState state = optimiser.read();
    rate.push_back(state.learning_rate);
    gradient_norm.push_back(state.gradient_norm);
  }

  Comparison comparison(golden);
  const std::array<Index, 1> over_steps = {train.steps};
  comparison.add<double>("loss", over_steps, loss);
  comparison.add<double>("grad_norm", over_steps, gradient_norm);
  comparison.add<double>("lr", over_steps, rate);
  comparison.add_parameters<T>("final.", model.parameters(), copy_to_host(model.values()));
  return comparison.finish();
}

template std::vector<TensorError> verify_model<float>(const GoldenFile&, const Context&,
                                                      Implementation);
template std::vector<TensorError> verify_model<double>(const GoldenFile&, const Context&,
                                                       Implementation);
template std::vector<TensorError> verify_training<float>(const GoldenFile&, const Context&,
                                                         Implementation);
template std::vector<TensorError> verify_training<double>(const GoldenFile&, const Context&,
                                                          Implementation);

}  // namespace vla_bench
