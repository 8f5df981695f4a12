// mqar and copy: a fresh TinyLM, trained by the protocol, evaluated on fresh batches.
#include <fmt/format.h>

#include <cmath>

#include "core/count.h"
#include "core/text.h"
#include "experiments/cost.h"
#include "experiments/declaration.h"
#include "experiments/experiment.h"
#include "experiments/record.h"
#include "mixers/registry.h"
#include "model/tiny_lm.h"

namespace vla_bench {
namespace {

Table history_table(const std::vector<HistoryRow>& history) {
  Table table(history_schema());
  for (const HistoryRow& row : history) {
    table.add({row.step, row.loss, row.accuracy, row.lr, row.gradient_norm});
  }
  return table;
}

}  // namespace

Index Training::work(const RunConfig& config) {
  const Index weights = block_weights(config);
  const Index targets = vla_bench::targets_per_row(config);
  const Index batch = config.train.batch;
  const Index head = times({config.model.vocab_size, config.model.d_model()});
  // Every product of the forward has two in the backward: to its input and to its weights.
  const Index backward =
      plus({times({4, weights, batch, sequence_length(config)}), times({4, head, batch, targets}),
            cores_flop(config, LatencyPass::backward, batch, config.model.mixer_layers())});
  const Index step = plus({forward_flop(config, weights, batch, targets), backward});
  return plus(
      {times({config.train.steps, step}),
       times({config.eval.batches, forward_flop(config, weights, config.eval.batch, targets)})});
}

CellResult Training::run(const CellConfig& cell, const CellEnvironment& environment) {
  const RunConfig& config = cell.config;
  const Context& context = environment.context;
  const MixerConfig& mixer = config.mixers.front();
  const Support support =
      mixer_support(mixer, config.model.d_h, context.device, Implementation::production);
  if (!support.ok) return unmeasured(cell, environment, CellStatus::skipped, support.reason);

  TinyLm<float> model(config.model, mixer, context);
  model.initialise(static_cast<std::uint64_t>(config.seeds.front()));
  const TrainOutcome outcome = train<float>(context, config, model, environment.checkpoint,
                                            environment.progress, environment.stop);

  CellResult result;
  result.warning = outcome.warning;
  result.table = Table(Training::table());
  result.history = history_table(outcome.history);
  Record record(Training::table(), config, context.device);
  record.set(Columns::steps, outcome.steps_done).set(Columns::train_seconds, outcome.train_seconds);

  if (outcome.interrupted) {
    result.status = CellStatus::interrupted;
    result.reason = fmt::format("stopped after step {}", outcome.steps_done);
  } else if (outcome.diverged) {
    result.status = CellStatus::diverged;
    result.reason = outcome.reason;
  } else {
    const LossResult evaluation = evaluate<float>(context, config, model, environment.stop);
    if (environment.stop != nullptr && environment.stop->load()) {
      result.status = CellStatus::interrupted;
      result.reason = "stopped in the evaluation";
    } else if (std::isfinite(evaluation.loss)) {
      record.set(Columns::accuracy, evaluation.accuracy).set(Columns::loss, evaluation.loss);
    } else {
      // The last update can break parameters whose loss was still finite.
      result.status = CellStatus::diverged;
      result.reason = fmt::format("evaluation loss is {} after step {}",
                                  without_nan_sign(evaluation.loss), outcome.steps_done);
    }
  }
  result.table.add(record.set_status(result.status, result.reason).values());
  return result;
}

}  // namespace vla_bench
