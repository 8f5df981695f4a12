// mqar and copy: a fresh TinyLM, trained by the protocol, evaluated on fresh batches.
#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <vector>

#include "core/count.h"
#include "core/text.h"
#include "experiments/cost.h"
#include "experiments/declaration.h"
#include "experiments/experiment.h"
#include "experiments/list.h"
#include "experiments/record.h"
#include "experiments/trained_probe.h"
#include "mixers/registry.h"
#include "model/tiny_lm.h"
#include "train/trainer.h"

namespace vla_bench {
namespace {

Table history_table(const std::vector<HistoryRow>& history) {
  Table table(history_schema());
  for (const HistoryRow& row : history) {
    table.add({row.step, row.loss, row.accuracy, row.lr, row.gradient_norm});
  }
  return table;
}

/// Operations of one training step on rows of one size.
Index step_flop(const RunConfig& config) {
  const Index weights = block_weights(config);
  const Index targets = targets_per_row(config);
  const Index batch = config.train.batch;
  const Index head = times({config.model.vocab_size, config.model.d_model()});
  // Every product of the forward has two in the backward: to its input and to its weights.
  const Index backward =
      plus({times({4, weights, batch, sequence_length(config)}), times({4, head, batch, targets}),
            cores_flop(config, LatencyPass::backward, batch, config.model.mixer_layers())});
  return plus({forward_flop(config, weights, batch, targets), backward});
}

/// Operations of all training steps; a last, partial cycle has each size in its part of a cycle.
Index steps_flop(const RunConfig& config) {
  const TrainSizes sizes(config);
  const Index whole = config.train.steps / sizes.cycle();
  const Index rest = config.train.steps % sizes.cycle();
  Index flop = 0;
  for (std::size_t size = 0; size < sizes.configs().size(); ++size) {
    const Index in_cycle = sizes.steps_of(size);
    const Index in_rest = times({in_cycle, rest}) / sizes.cycle();
    const Index steps = plus({times({in_cycle, whole}), in_rest});
    flop = plus({flop, times({steps, step_flop(sizes.configs()[size])})});
  }
  return flop;
}

/// Operations of one evaluation of all slices.
Index evaluation_flop(const RunConfig& config) {
  Index flop = 0;
  for (const Slice& slice : eval_slices(config)) {
    const RunConfig& sized = slice.config;
    const Index batch =
        forward_flop(sized, block_weights(sized), sized.eval.batch, targets_per_row(sized));
    flop = plus({flop, times({sized.eval.batches, batch})});
  }
  return flop;
}

/// What the final evaluation measured of a slice.
struct Measured {
  LossResult loss;
  std::optional<double> probe_accuracy;  // with eval.probe_sequences
};

void set_measured(const Measured& measured, Record& row) {
  row.set(Columns::accuracy, measured.loss.accuracy).set(Columns::loss, measured.loss.loss);
  if (measured.probe_accuracy) row.set(Columns::probe_accuracy, *measured.probe_accuracy);
}

Measured mean_of(const std::vector<Measured>& slices) {
  std::vector<LossResult> losses;
  double probes = 0.0;
  for (const Measured& slice : slices) {
    losses.push_back(slice.loss);
    probes += slice.probe_accuracy.value_or(0.0);
  }
  Measured mean{.loss = mean_of(losses), .probe_accuracy = {}};
  if (slices.front().probe_accuracy) {
    mean.probe_accuracy = probes / static_cast<double>(slices.size());
  }
  return mean;
}

/// The table's rows of a finished evaluation: the mean of slices first, or the only row.
void add_measured_rows(const RunConfig& config, const Record& cell,
                       const std::vector<Measured>& slices, const Context& context, Table& table) {
  Record row = cell;
  set_measured(mean_of(slices), row);
  table.add(row.values());
  if (!has_slices(config)) return;
  for (std::size_t i = 0; const Slice& slice : eval_slices(config)) {
    Record own(table_of(config), slice.config, context.device);
    own.set(Columns::slice, slice.name)
        .set(Columns::steps, cell.value(Columns::steps))
        .set(Columns::train_seconds, cell.value(Columns::train_seconds));
    set_measured(slices[i], own);
    table.add(own.values());
    ++i;
  }
}

/// The mixer of the final evaluation.
MixerConfig evaluated_mixer(const RunConfig& config) {
  MixerConfig mixer = config.mixers.front();
  std::visit(
      [&](auto& own) {
        if constexpr (requires { own.hold_after; }) {
          own.hold_after = config.eval.hold_penalty_after;
        }
      },
      mixer.options);
  return mixer;
}

std::vector<Measured> measure(const Context& context, const RunConfig& config, TinyLm<float>& model,
                              const std::atomic<bool>* stop) {
  std::vector<Measured> measured;
  for (const LossResult& loss :
       Evaluation<float>(context, config, model, RngStream::eval_batch).run(stop)) {
    measured.push_back({.loss = loss, .probe_accuracy = {}});
  }
  if (config.eval.probe_sequences == 0) return measured;
  const std::vector<double> probes =
      probe_accuracies(config, evaluated_mixer(config), context, model, stop);
  for (std::size_t i = 0; i < probes.size(); ++i) measured[i].probe_accuracy = probes[i];
  return measured;
}

/// The final evaluation of the trained model, its penalty matrix held where the config says so.
std::vector<Measured> evaluate(const Context& context, const RunConfig& config,
                               TinyLm<float>& trained, const std::atomic<bool>* stop) {
  if (config.eval.hold_penalty_after == 0) return measure(context, config, trained, stop);
  TinyLm<float> held(config.model, evaluated_mixer(config), context);
  device_copy(context.device, held.values().data(), context.device, trained.values().data(),
              static_cast<std::size_t>(trained.values().bytes()));
  return measure(context, config, held, stop);
}

}  // namespace

Index Training::work(const RunConfig& config) {
  const TrainConfig& train = config.train;
  const Index tests = train.stop_accuracy > 0.0 ? (train.steps - 1) / train.stop_every : 0;
  return plus({steps_flop(config), times({tests + 1, evaluation_flop(config)})});
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
  const Schema& schema = table_of(config);
  result.table = Table(schema);
  result.history = history_table(outcome.history);
  Record record(schema, config, context.device);
  record.set(Columns::steps, outcome.steps_done).set(Columns::train_seconds, outcome.train_seconds);

  if (outcome.interrupted) {
    result.status = CellStatus::interrupted;
    result.reason = fmt::format("stopped after step {}", outcome.steps_done);
  } else if (outcome.diverged) {
    result.status = CellStatus::diverged;
    result.reason = outcome.reason;
  } else {
    const std::vector<Measured> slices = evaluate(context, config, model, environment.stop);
    const double loss = mean_of(slices).loss.loss;
    if (environment.stop != nullptr && environment.stop->load()) {
      result.status = CellStatus::interrupted;
      result.reason = "stopped in the evaluation";
    } else if (std::isfinite(loss)) {
      add_measured_rows(config, record, slices, context, result.table);
      return result;
    } else {
      // The last update can break parameters whose loss was still finite.
      result.status = CellStatus::diverged;
      result.reason = fmt::format("evaluation loss is {} after step {}", without_nan_sign(loss),
                                  outcome.steps_done);
    }
  }
  result.table.add(record.set_status(result.status, result.reason).values());
  return result;
}

}  // namespace vla_bench
