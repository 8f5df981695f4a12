#include "experiments/recall.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "core/count.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/statistics.h"
#include "experiments/cost.h"
#include "experiments/experiment.h"
#include "experiments/record.h"
#include "mixers/cpu_vector.h"
#include "mixers/features.h"
#include "mixers/penalty_memory.h"
#include "mixers/registry.h"
#include "mixers/work.h"

namespace vla_bench {
namespace {

enum Lane : std::uint32_t { kKeys = 0, kCodebook = 1, kValueIds = 2 };

void scale_rows_to(double length, Index cols, std::vector<double>& rows) {
  for (std::size_t start = 0; start < rows.size(); start += static_cast<std::size_t>(cols)) {
    double* row = rows.data() + start;
    double squares = 0.0;
    for (Index i = 0; i < cols; ++i) squares += row[i] * row[i];
    const double factor = length / std::max(std::sqrt(squares), mixers::kUnitFloor);
    for (Index i = 0; i < cols; ++i) row[i] *= factor;
  }
}

std::vector<double> normal_rows(Rng rng, Index rows, Index cols) {
  std::vector<double> values(static_cast<std::size_t>(rows * cols));
  for (double& value : values) value = rng.normal();
  return values;
}

/// The row of `codebook` with the largest inner product with `query`; -1 when none is a number.
Index decode(const std::vector<double>& codebook, const std::vector<double>& query) {
  const auto d = static_cast<Index>(query.size());
  const Index entries = static_cast<Index>(codebook.size()) / d;
  Index best = -1;
  double largest = -std::numeric_limits<double>::infinity();
  for (Index entry = 0; entry < entries; ++entry) {
    const double* row = codebook.data() + entry * d;
    double product = 0.0;
    for (Index i = 0; i < d; ++i) product += row[i] * query[static_cast<std::size_t>(i)];
    if (product > largest) {
      largest = product;
      best = entry;
    }
  }
  return best;
}

/// The feature map of keys: the mixer's own, or elu1 where it has none, so that it gets the same
/// keys as the others.
FeatureMap key_features(const MixerConfig& mixer) {
  const auto of = [](const auto& own) {
    if constexpr (requires { own.feature_map; }) return own.feature_map;
    return FeatureMap::elu1;
  };
  return std::visit(of, mixer.options);
}

/// Length of a write's penalty direction; empty for a mixer whose writes take none.
std::optional<double> direction_length(const MixerConfig& mixer, Index d) {
  const auto of = [d](const auto& own) -> std::optional<double> {
    if constexpr (requires { own.direction_length(d); }) return own.direction_length(d);
    return std::nullopt;
  };
  return std::visit(of, mixer.options);
}

double run_trial(const RunConfig& config, Index trial, HeadMemory<double>& memory) {
  const MixerConfig& mixer = config.mixers.front();
  const Index n = config.task.n_pairs;
  const Index d = config.model.d_h;
  const Index d_k = mixer_layout(mixer, d).key_channels(d);
  const auto seed = static_cast<std::uint64_t>(config.seeds.front());
  const auto rng = [&](Lane lane) {
    return Rng(seed, RngStream::recall, static_cast<std::uint32_t>(trial), lane);
  };

  std::vector<double> directions = normal_rows(rng(kKeys), n, d_k);  // (n, d_k), raw keys at first
  std::vector<double> keys = directions;                             // (n, d_k)
  if (config.recall.keys == RecallKeys::feature) {
    double* values = keys.data();
    mixers::apply_feature_map(mixers::CpuVector<double>{{n * d_k}}, key_features(mixer), values);
  }
  scale_rows_to(1.0, d_k, keys);
  const std::optional<double> length = direction_length(mixer, d);
  if (length) scale_rows_to(*length, d_k, directions);
  std::vector<double> codebook = normal_rows(rng(kCodebook), config.recall.codebook, d);
  scale_rows_to(1.0, d, codebook);
  std::vector<Index> ids(static_cast<std::size_t>(n));
  Rng id_rng = rng(kValueIds);
  for (Index& id : ids) id = id_rng.below(static_cast<std::uint32_t>(config.recall.codebook));

  for (Index i = 0; i < n; ++i) {
    if (length) as_penalty_memory(memory)->set_direction(directions.data() + i * d_k);
    memory.write(keys.data() + i * d_k, codebook.data() + ids[static_cast<std::size_t>(i)] * d);
  }
  std::vector<double> out(static_cast<std::size_t>(d));
  Index correct = 0;
  for (Index i = 0; i < n; ++i) {
    memory.read(keys.data() + i * d_k, out.data());
    correct += decode(codebook, out) == ids[static_cast<std::size_t>(i)];
  }
  return static_cast<double>(correct) / static_cast<double>(n);
}

}  // namespace

std::vector<double> recall_accuracies(const RunConfig& config, const Context& context,
                                      const std::atomic<bool>* stop) {
  const auto core = make_mixer_core<double>(config.mixers.front(), config.model.d_h, Device::cpu,
                                            Implementation::production);
  std::vector<double> accuracies(static_cast<std::size_t>(config.recall.trials));
  parallel_items(context.threads, config.recall.trials, [&](Index trial) {
    if (stop != nullptr && stop->load()) return;
    const auto memory = core->memory();
    accuracies[static_cast<std::size_t>(trial)] = run_trial(config, trial, *memory);
  });
  return accuracies;
}

Index Recall::work(const RunConfig& config) {
  const Index n = config.task.n_pairs;
  const Index d = config.model.d_h;
  const HeadDims dims{.batch = 1, .tokens = n, .heads = 1, .d_h = d};
  const Work core = core_work(config.mixers.front(), dims, LatencyPass::forward, kElementBytes);
  return times({config.recall.trials, plus({core.flop, times({2, n, config.recall.codebook, d})})});
}

CellResult Recall::run(const CellConfig& cell, const CellEnvironment& environment) {
  const RunConfig& config = cell.config;
  const Support support = mixer_support(config.mixers.front(), config.model.d_h, Device::cpu,
                                        Implementation::production);
  if (!support.ok) return unmeasured(cell, environment, CellStatus::skipped, support.reason);

  const std::vector<double> accuracies =
      recall_accuracies(config, environment.context, environment.stop);
  if (environment.stop != nullptr && environment.stop->load()) {
    return unmeasured(cell, environment, CellStatus::interrupted, "stopped");
  }
  const Statistics spread = statistics(accuracies);
  CellResult result;
  result.table = Table(Recall::table());
  Record record(Recall::table(), config, environment.context.device);
  record.set(Columns::accuracy, spread.mean);
  // A trial is one observation, of n_pairs draws; a single trial has no spread.
  const double variance = fraction_variance(spread.mean, static_cast<double>(config.task.n_pairs));
  if (const auto interval = mean_interval_95(spread, variance, kFractions)) {
    record.set(Columns::low, interval->low).set(Columns::high, interval->high);
  }
  result.table.add(record.values());
  return result;
}

}  // namespace vla_bench
