#include "report/cell_columns.h"

#include <algorithm>
#include <string>
#include <variant>

#include "config/identity.h"
#include "config/read.h"
#include "core/count.h"
#include "experiments/list.h"

namespace vla_bench {
namespace {

constexpr Index kFloatBytes = 4;

/// Numbers that one head keeps of a sequence of `tokens`.
template <class Options>
Index head_state(const Options& options, Index tokens, Index d, Index d_v) {
  if constexpr (requires { state_size(options, tokens, d); }) {
    return state_size(options, tokens, d);
  } else {
    Index size = 0;
    with_rule(options, d, [&](const auto& rule) { size = mixers::state_size(rule, d, d_v); });
    return size;
  }
}

/// Evaluated queries of rows of one size.
Index queries(const RunConfig& config) {
  return config.eval.batches * config.eval.batch * targets_per_row(config);
}

Index slice_queries(const RunConfig& config) {
  Index sum = 0;
  for (const Slice& slice : eval_slices(config)) sum += queries(slice.config);
  return sum;
}

/// The most tokens of an evaluated row.
Index longest(const RunConfig& config) {
  Index tokens = 0;
  for (const Slice& slice : eval_slices(config)) {
    tokens = std::max(tokens, sequence_length(slice.config));
  }
  return tokens;
}

}  // namespace

Index state_bytes(const RunConfig& config, Index tokens) {
  const ModelConfig& model = config.model;
  const Index head = std::visit(
      [&](const auto& options) {
        return head_state(options, tokens, model.d_h, model.value_channels());
      },
      config.mixers.front().options);
  return times({kFloatBytes, model.mixer_layers(), model.n_heads, head});
}

Index conv_state_bytes(const RunConfig& config) {
  const ModelConfig& model = config.model;
  const auto earlier = [](Index taps) { return std::max<Index>(taps - 1, 0); };  // tokens
  const MixerLayout mixer =
      std::visit([&](const auto& options) { return layout(options, model.d_h); },
                 config.mixers.front().options);
  const Index qkv = 2 * mixer.key_channels(model.d_h) + model.value_channels();  // of a head
  const Index mixers = model.mixer_layers();
  const Index tokens = mixers * earlier(model.short_conv) +
                       (model.n_layers - mixers) * earlier(ModelConfig::kGatedConvTaps);
  const Index before_core =
      mixer.convolutions ? times({mixers, earlier(model.short_conv_qkv), model.n_heads, qkv}) : 0;
  return times({kFloatBytes, plus({times({tokens, model.d_model()}), before_core})});
}

Value column_of(const RunConfig& config, std::string_view column) {
  const MixerConfig& mixer = config.mixers.front();
  const auto text = [](std::string_view value) { return Value(std::string(value)); };
  // Empty for the other experiments, where a number would be misleading.
  const auto read = [&](std::string_view key) { return reads_key(config, key); };

  if (column == Columns::experiment) return text(enum_name(config.experiment));
  if (column == Columns::label) return mixer_label(mixer);
  if (column == Columns::mixer) return text(mixer.name());
  if (has_slices(config)) {  // the row of their mean
    if (column == Columns::slice) return text(kMeanSlice);
    if (column == Columns::n_pairs || column == Columns::seq_len) return {};
    if (column == Columns::queries) return slice_queries(config);
  }
  if (column == Columns::n_pairs && read("task.n_pairs")) return config.task.n_pairs;
  if (column == Columns::layout && read("task.layout")) return text(enum_name(config.task.layout));
  if (column == Columns::d_h) return config.model.d_h;
  if (column == Columns::n_heads) return config.model.n_heads;
  if (column == Columns::seq_len) return sequence_length(config);
  if (column == Columns::short_conv) return config.model.short_conv;
  if (column == Columns::batch) return config.latency.batch;
  if (column == Columns::trials) return config.recall.trials;
  if (column == Columns::source) return text(enum_name(config.probe.source));
  if (column == Columns::seed) return config.seeds.front();
  if (column == Columns::learning_rate) return config.train.lr;
  if (column == Columns::queries) return queries(config);
  if (trains(config.experiment)) {  // latency has its own, of the whole batch
    if (column == Columns::state_bytes) return state_bytes(config, longest(config));
    if (column == Columns::conv_state_bytes) return conv_state_bytes(config);
  }
  if (column == Columns::device) return text(enum_name(config.device));
  if (column == Columns::precision) return text(computed_in(config));
  return {};
}

std::vector<Value> columns_of(const RunConfig& config, std::span<const Column> columns) {
  std::vector<Value> values;
  for (const Column& column : columns) values.push_back(column_of(config, column));
  return values;
}

}  // namespace vla_bench
