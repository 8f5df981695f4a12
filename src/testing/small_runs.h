// A small training run that tests repeat, interrupt and resume.
#pragma once

#include <atomic>
#include <filesystem>
#include <utility>
#include <vector>

#include "config/read.h"
#include "train/trainer.h"

namespace vla_bench::testing {

inline RunConfig small_run_config(const MixerConfig& mixer = {}) {
  RunConfig config;
  config.mixers = {mixer};
  config.model = {.n_heads = 2,
                  .d_h = 8,
                  .n_layers = 1,
                  .d_ff = 16,
                  .vocab_size = 16,
                  .max_seq_len = 16,
                  .short_conv = 2};
  config.task.n_pairs = 3;
  config.train.steps = 7;
  config.train.batch = 4;
  config.train.lr = 1e-2;
  config.train.warmup = 2;
  config.train.log_every = 3;
  config.train.checkpoint_every = 2;
  config.eval = {.batches = 2, .batch = 3};
  config.seeds = {11};
  return config;
}

/// A model with its initial parameters, and its training loop.
template <class T>
struct SmallRun {
  RunConfig config;
  Context context;
  TinyLm<T> model;

  explicit SmallRun(RunConfig config_ = small_run_config(), int threads = 1)
      : SmallRun(std::move(config_), Context{.threads = threads}) {}
  SmallRun(RunConfig config_, const Context& context_)
      : config(std::move(config_)),
        context(context_),
        model(config.model, config.mixers.front(), context) {
    model.initialise(static_cast<std::uint64_t>(config.seeds.front()));
  }

  TrainOutcome train(const std::filesystem::path& checkpoint = {},
                     const std::atomic<bool>* stop = nullptr,
                     const std::function<void(const TrainProgress&)>& progress = {}) {
    return vla_bench::train<T>(context, config, model, checkpoint, progress, stop);
  }
  std::vector<T> values() {
    std::vector<T> host(static_cast<std::size_t>(model.values().size()));
    device_copy(Device::cpu, host.data(), context.device, model.values().data(),
                static_cast<std::size_t>(model.values().bytes()));
    return host;
  }
};

/// The sizes A, B, B, A of training rows in a cycle of four steps, evaluated on three slices, of
/// which one is longer than what is trained on.
inline RunConfig segmented_run_config(const MixerConfig& mixer, TaskLayout layout) {
  RunConfig config = small_run_config(mixer);
  config.model.max_seq_len = 52;
  config.task.layout = layout;
  config.task.train_segments = {{.n_pairs = 1, .seq_len = 12, .steps = 1},
                                {.n_pairs = 3, .seq_len = 44, .steps = 2},
                                {.n_pairs = 1, .seq_len = 12, .steps = 1}};
  config.task.eval_segments = {
      {.n_pairs = 1, .seq_len = 12}, {.n_pairs = 4, .seq_len = 52}, {.n_pairs = 2, .seq_len = 44}};
  config.train.steps = 9;
  config.train.log_every = 1;
  return config;
}

/// Trains with a new model in every step, and so without memory that several sizes use, and returns
/// the parameters.
template <class T>
std::vector<T> train_on_new_models(const RunConfig& config, const Context& context) {
  SmallRun<T> first(config, context);
  OptimiserState<T> optimiser(context, first.model.values().size());
  std::vector<T> values = first.values();
  const auto bytes = static_cast<std::size_t>(first.model.values().bytes());
  TrainSizes sizes(config);
  for (Index step = 0; step < config.train.steps; ++step) {
    SmallRun<T> run(config, context);
    device_copy(context.device, run.model.values().data(), Device::cpu, values.data(), bytes);
    Batch batch;
    make_batch(sizes.configs()[sizes.at(step)], RngStream::train_batch, step, config.train.batch,
               batch);
    run.model.forward_backward(batch);
    request_optimiser_step(context, config.train, run.model, optimiser);
    values = run.values();
  }
  return values;
}

}  // namespace vla_bench::testing
