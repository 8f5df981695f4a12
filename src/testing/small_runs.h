// A small training run that tests repeat, interrupt and resume.
#pragma once

#include <atomic>
#include <filesystem>
#include <utility>
#include <vector>

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
      : config(std::move(config_)),
        context{.threads = threads},
        model(config.model, config.mixers.front(), context) {
    model.initialise(static_cast<std::uint64_t>(config.seeds.front()));
  }

  TrainOutcome train(const std::filesystem::path& checkpoint = {},
                     const std::atomic<bool>* stop = nullptr,
                     const std::function<void(const TrainProgress&)>& progress = {}) {
    return vla_bench::train<T>(context, config, model, checkpoint, progress, stop);
  }
  std::vector<T> values() { return {model.values().begin(), model.values().end()}; }
};

}  // namespace vla_bench::testing
