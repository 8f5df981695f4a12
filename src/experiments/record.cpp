#include "experiments/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace vla_bench {
namespace {

/// The value that the config gives `column`, or an empty one.
Value identity(const RunConfig& config, Device device, std::string_view column) {
  const MixerConfig& mixer = config.mixers.front();
  const auto text = [](std::string_view value) { return Value(std::string(value)); };
  // The copy task has no pairs and one layout: a number there would mislead a reader.
  const bool has_pairs = config.experiment != ExperimentKind::copy;

  if (column == "experiment") return text(enum_name(config.experiment));
  if (column == "label") return mixer_label(mixer);
  if (column == "mixer") return text(enum_name(mixer.mixer));
  if (column == "n_pairs" && has_pairs) return config.task.n_pairs;
  if (column == "layout" && has_pairs) return text(enum_name(config.task.layout));
  if (column == "d_h") return config.model.d_h;
  if (column == "n_heads") return config.model.n_heads;
  if (column == "seq_len") return sequence_length(config);
  if (column == "short_conv") return config.model.short_conv;
  if (column == "batch") return config.latency.batch;
  if (column == "trials") return config.recall.trials;
  if (column == "seed") return config.seeds.front();
  if (column == "device") return text(device_name(device));
  if (column == "precision") return text(computed_in(config));
  if (column == "status") return text(status_name(CellStatus::ok));
  return {};
}

bool has_status(const Schema& schema) {
  const auto& columns = schema.columns;
  return std::find(columns.begin(), columns.end(), "status") != columns.end();
}

}  // namespace

Record::Record(const Schema& schema, const RunConfig& config, Device device) : schema_(schema) {
  values_.reserve(schema.columns.size());
  for (const std::string_view column : schema.columns) {
    values_.push_back(identity(config, device, column));
  }
}

Record& Record::set(std::string_view column, Value value) {
  const auto found = std::find(schema_.columns.begin(), schema_.columns.end(), column);
  if (found == schema_.columns.end()) {
    throw std::logic_error(fmt::format("table {} has no column {}", schema_.name, column));
  }
  values_[static_cast<std::size_t>(found - schema_.columns.begin())] = std::move(value);
  return *this;
}

Record& Record::set_status(CellStatus status, const std::string& reason) {
  if (!has_status(schema_)) return *this;
  set("status", std::string(status_name(status)));
  return set("reason", reason.empty() ? Value() : Value(reason));
}

CellResult unmeasured(const CellConfig& cell, const CellEnvironment& environment, CellStatus status,
                      const std::string& reason) {
  const Schema& schema = experiment_schema(cell.config.experiment);
  CellResult result{
      .status = status, .reason = reason, .warning = {}, .table = Table(schema), .history = {}};
  if (has_status(schema)) {
    Record record(schema, cell.config, environment.context.device);
    result.table.add(record.set_status(status, reason).values());
  }
  return result;
}

}  // namespace vla_bench
