#include "report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "core/error.h"

namespace vla_bench {

const Schema& accuracy_schema() {
  static const Schema schema{
      "accuracy",
      {"experiment", "label",         "mixer",  "n_pairs",   "d_h",           "n_heads", "seq_len",
       "layout",     "short_conv",    "seed",   "steps",     "learning_rate", "queries", "accuracy",
       "loss",       "train_seconds", "device", "precision", "status",        "reason"}};
  return schema;
}

const Schema& recall_schema() {
  static const Schema schema{"recall",
                             {"label", "mixer", "d_h", "n_pairs", "seed", "trials", "accuracy",
                              "low", "high", "precision", "status", "reason"}};
  return schema;
}

const Schema& state_norm_schema() {
  static const Schema schema{"state_norm",
                             {"label", "mixer", "seed", "t", "s_norm", "a_norm", "precision"}};
  return schema;
}

const Schema& jacobian_schema() {
  static const Schema schema{"jacobian",
                             {"label", "seed", "t", "sigma_max", "sigma_closed_form", "cosine",
                              "product_norm", "precision"}};
  return schema;
}

const Schema& latency_schema() {
  static const Schema schema{"latency",
                             {"label",
                              "mixer",
                              "implementation",
                              "device",
                              "batch",
                              "n_heads",
                              "d_h",
                              "seq_len",
                              "pass",
                              "median_s",
                              "p10_s",
                              "p90_s",
                              "repeats",
                              "relative_error",
                              "state_bytes",
                              "activation_bytes",
                              "precision",
                              "flop",
                              "flop_per_s",
                              "bytes",
                              "bytes_per_s",
                              "sgemm_flop_per_s",
                              "copy_bytes_per_s",
                              "status",
                              "reason"}};
  return schema;
}

const Schema& history_schema() {
  static const Schema schema{"history",
                             {"step", "loss", "accuracy", "learning_rate", "gradient_norm"}};
  return schema;
}

const Schema* find_schema(std::string_view name) {
  for (const Schema* schema : {&accuracy_schema(), &recall_schema(), &state_norm_schema(),
                               &jacobian_schema(), &latency_schema(), &history_schema()}) {
    if (schema->name == name) return schema;
  }
  return nullptr;
}

Table::Table(const Schema& schema)
    : name(schema.name), columns(schema.columns.begin(), schema.columns.end()) {}

void Table::add(std::vector<Value> row) {
  if (row.size() != columns.size()) {
    throw std::logic_error(fmt::format("table {}: a row of {} values for {} columns", name,
                                       row.size(), columns.size()));
  }
  rows.push_back(std::move(row));
}

std::size_t Table::column(std::string_view column_name) const {
  const auto found = std::find(columns.begin(), columns.end(), column_name);
  if (found == columns.end()) {
    throw BadInput(fmt::format("[table] {}: no column \"{}\"", name, column_name));
  }
  return static_cast<std::size_t>(found - columns.begin());
}

}  // namespace vla_bench
