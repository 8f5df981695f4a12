#include "experiments/cell_work.h"

#include <stdexcept>

#include "config/read.h"
#include "core/count.h"
#include "experiments/probe.h"
#include "mixers/work.h"
#include "model/tiny_lm.h"
#include "tasks/batch.h"

namespace vla_bench {
namespace {

constexpr Index kElementBytes = 4;  // of no consequence for operations

/// A forward of the cores of `layers` layers.
Index cores_flop(const RunConfig& config, LatencyPass pass, Index batch, Index layers) {
  const HeadDims dims{.batch = batch,
                      .tokens = sequence_length(config),
                      .heads = config.model.n_heads,
                      .d_h = config.model.d_h};
  return times({layers, core_work(config.mixers.front(), dims, pass, kElementBytes).flop});
}

/// Numbers that a token is multiplied with on its way through the blocks, the head left out.
Index block_weights(const RunConfig& config) {
  const ParameterTable table = tiny_lm_parameters(config.model, config.mixers.front());
  Index weights = 0;
  for (const Parameter& parameter : table.all()) {
    const bool looked_up = parameter.name == "tok.weight" || parameter.name == "pos.weight";
    const bool vector = parameter.shape.size() < 2;  // biases and norms: of order D
    if (!looked_up && !vector) weights = plus({weights, parameter.size()});
  }
  return weights;
}

/// A forward of the model over `batch` rows, `targets` positions of each passing the head.
Index forward_flop(const RunConfig& config, Index weights, Index batch, Index targets) {
  const Index head = times({config.model.vocab_size, config.model.d_model()});
  return plus({times({2, weights, batch, sequence_length(config)}),
               times({2, head, batch, targets}),
               cores_flop(config, LatencyPass::forward, batch, config.model.n_layers)});
}

Index training_flop(const RunConfig& config) {
  const Index weights = block_weights(config);
  const Index targets = targets_per_row(config);
  const Index batch = config.train.batch;
  const Index head = times({config.model.vocab_size, config.model.d_model()});
  // Every product of the forward has two in the backward: to its input and to its weights.
  const Index backward =
      plus({times({4, weights, batch, sequence_length(config)}), times({4, head, batch, targets}),
            cores_flop(config, LatencyPass::backward, batch, config.model.n_layers)});
  const Index step = plus({forward_flop(config, weights, batch, targets), backward});
  return plus(
      {times({config.train.steps, step}),
       times({config.eval.batches, forward_flop(config, weights, config.eval.batch, targets)})});
}

Index recall_flop(const RunConfig& config) {
  const Index n = config.task.n_pairs;
  const Index d = config.model.d_h;
  const HeadDims dims{.batch = 1, .tokens = n, .heads = 1, .d_h = d};
  const Work core = core_work(config.mixers.front(), dims, LatencyPass::forward, kElementBytes);
  return times({config.recall.trials, plus({core.flop, times({2, n, config.recall.codebook, d})})});
}

Index probe_flop(const RunConfig& config) {
  const Index memories = cores_flop(config, LatencyPass::forward, 1, 1);
  if (config.probe.source == ProbeSource::gaussian) return memories;
  return plus({memories, forward_flop(config, block_weights(config), 1, 0)});
}

Index jacobian_flop(const RunConfig& config) {
  const Index d = config.model.d_h;
  const Index heads = config.model.n_heads;
  const Index tokens = sequence_length(config);
  // Jacobi's SVD: some six sweeps over d^2 / 2 pairs, each of which turns two rows and two columns
  // of d numbers (12 d operations).
  const Index svd = times({36, d, d, d});
  const auto recorded = static_cast<Index>(recorded_tokens(tokens).size());
  return plus(
      {probe_flop(config), times({4, heads, tokens, d, d}), times({2, heads, recorded, svd})});
}

Index latency_flop(const RunConfig& config) {
  const LatencyConfig& latency = config.latency;
  Index passes = 0;
  for (const LatencyPass pass : latency.passes) {
    passes = plus({passes, cores_flop(config, pass, latency.batch, 1)});
  }
  return times({static_cast<Index>(latency.implementations.size()),
                plus({latency.warmup, latency.min_repeats}), passes});
}

}  // namespace

Index cell_flop(const RunConfig& config) {
  switch (config.experiment) {
    case ExperimentKind::mqar:
    case ExperimentKind::copy:
      return training_flop(config);
    case ExperimentKind::recall:
      return recall_flop(config);
    case ExperimentKind::state_norm:
      return probe_flop(config);
    case ExperimentKind::jacobian:
      return jacobian_flop(config);
    case ExperimentKind::latency:
      return latency_flop(config);
  }
  throw std::logic_error("unknown experiment");
}

}  // namespace vla_bench
