#include <algorithm>
#include <cmath>

#include "config/curriculum.h"
#include "ops/ops.h"
#include "tasks/make_rows.h"
#include "tasks/query_slots.h"

namespace vla_bench {

QuerySlotTable::QuerySlotTable(std::int32_t count, double power_a)
    : weights_(static_cast<std::size_t>(count)), tree_(static_cast<std::size_t>(count)) {
  // Relative to the heaviest slot (the first for a < 1, else the last), so that no power overflows.
  const double heaviest = power_a < 1.0 ? 1.0 : static_cast<double>(count);
  const auto relative = [&](std::size_t g) {
    return std::pow(static_cast<double>(g + 1) / heaviest, power_a - 1.0);
  };
  double sum = 0.0;
  for (std::size_t g = 0; g < weights_.size(); ++g) sum += relative(g);
  // Scaled to 2^31: raising light slots to 1 adds at most `count` < 2^30, and 32 bits hold the sum.
  for (std::size_t g = 0; g < weights_.size(); ++g) {
    weights_[g] = std::max(1U, static_cast<std::uint32_t>(relative(g) / sum * 0x1p31));
    total_ += weights_[g];
  }
  for (std::size_t i = 1; i <= tree_.size(); ++i) {
    tree_[i - 1] += weights_[i - 1];
    const std::size_t parent = i + (i & (~i + 1));
    if (parent <= tree_.size()) tree_[parent - 1] += tree_[i - 1];
  }
}

QuerySlots QuerySlotTable::view() const {
  return {static_cast<std::int32_t>(weights_.size()), weights_.data(), tree_.data(), total_};
}

void make_mqar_rows(const RunConfig& config, const RowDraws& draws, Batch& batch) {
  const auto n_pairs = static_cast<std::int32_t>(config.task.n_pairs);
  const Index curriculum = draws.stream == RngStream::train_batch ? config.task.curriculum : 0;
  const MqarRow row{.n_pairs = n_pairs,
                    .distinct = distinct_pairs(n_pairs, curriculum, draws.index),
                    .passes = static_cast<std::int32_t>(config.task.passes),
                    .rewrites = static_cast<std::int32_t>(config.task.rewrites),
                    .vocab = static_cast<std::int32_t>(config.model.vocab_size),
                    .tokens = static_cast<std::int32_t>(batch.tokens),
                    .ignore = kIgnoreTarget};
  if (config.task.layout == TaskLayout::paper) {
    std::vector<std::int32_t> keys(static_cast<std::size_t>(row.vocab - 1));
    for (Index b = 0; b < batch.batch; ++b) {
      Rng rng = draws.row(b);
      fill_counting({}, 0, row.vocab - 1, keys.data());
      mqar_paper_row(rng, row, keys.data(), batch.inputs.data() + b * batch.tokens,
                     batch.targets.data() + b * batch.tokens);
    }
    return;
  }
  const QuerySlotTable table((row.tokens - written_tokens(row)) / 2, config.task.power_a);
  const QuerySlots slots = table.view();
  const Filler filler = filler_of(row.vocab, config.task.random_filler, config.task.filler_values);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(row.vocab));
  std::vector<std::uint32_t> tree(static_cast<std::size_t>(slots.count));
  const ZoologyPools pools{
      .keys = tokens.data(), .values = tokens.data() + row.vocab / 2, .tree = tree.data()};
  for (Index b = 0; b < batch.batch; ++b) {
    Rng rng = draws.row(b);
    std::int32_t* inputs = batch.inputs.data() + b * batch.tokens;
    std::int32_t* targets = batch.targets.data() + b * batch.tokens;
    start_zoology_row({}, row, slots, pools, inputs, targets);
    mqar_zoology_row(rng, row, slots, pools, inputs, targets);
    fill_free_positions(rng, row, filler, inputs);
  }
}

}  // namespace vla_bench
