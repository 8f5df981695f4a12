#include "report/cell_columns.h"

#include <stdexcept>
#include <string>

#include "config/enums.h"
#include "config/read.h"

namespace vla_bench {

Value column_of(const RunConfig& config, std::string_view column) {
  const MixerConfig& mixer = config.mixers.front();
  const auto text = [](std::string_view value) { return Value(std::string(value)); };
  // A number there would mislead a reader.
  const bool has_pairs = config.experiment != ExperimentKind::copy;

  if (column == "experiment") return text(enum_name(config.experiment));
  if (column == "label") return mixer_label(mixer);
  if (column == "mixer") return text(mixer.name());
  if (column == "n_pairs" && has_pairs) return config.task.n_pairs;
  if (column == "layout" && has_pairs) return text(enum_name(config.task.layout));
  if (column == "d_h") return config.model.d_h;
  if (column == "n_heads") return config.model.n_heads;
  if (column == "seq_len") return sequence_length(config);
  if (column == "short_conv") return config.model.short_conv;
  if (column == "batch") return config.latency.batch;
  if (column == "trials") return config.recall.trials;
  if (column == "source") return text(enum_name(config.probe.source));
  if (column == "seed") return config.seeds.front();
  if (column == "learning_rate") return config.train.lr;
  if (column == "queries") {
    return config.eval.batches * config.eval.batch * targets_per_row(config);
  }
  if (column == "device") return text(enum_name(config.device));
  if (column == "precision") return text(computed_in(config));
  return {};
}

const Schema& experiment_schema(ExperimentKind kind) {
  switch (kind) {
    case ExperimentKind::mqar:
    case ExperimentKind::copy:
      return accuracy_schema();
    case ExperimentKind::recall:
      return recall_schema();
    case ExperimentKind::state_norm:
      return state_norm_schema();
    case ExperimentKind::jacobian:
      return jacobian_schema();
    case ExperimentKind::latency:
      return latency_schema();
  }
  throw std::logic_error("unknown experiment");
}

}  // namespace vla_bench
