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
#include "mixers/value_groups.h"
#include "mixers/work.h"

namespace vla_bench {
namespace {

enum Substream : std::uint32_t {
  kKeys = 0,
  kCodebook = 1,
  kValueIds = 2,
  kStreamKeys = 3,
  kStreamValueIds = 4
};

/// Pairs of the stream that are in memory at a time.
constexpr Index kStreamBlock = 1024;

void scale_rows_to(double length, Index cols, std::vector<double>& rows) {
  for (std::size_t start = 0; start < rows.size(); start += static_cast<std::size_t>(cols)) {
    double* row = rows.data() + start;
    double squares = 0.0;
    for (Index i = 0; i < cols; ++i) squares += row[i] * row[i];
    const double factor = length / std::max(std::sqrt(squares), mixers::kUnitFloor);
    for (Index i = 0; i < cols; ++i) row[i] *= factor;
  }
}

std::vector<double> normal_rows(Rng& rng, Index rows, Index cols) {
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

/// Pairs to write: keys as stored, penalty directions where writes take them, ids of values.
struct Pairs {
  std::vector<double> keys, directions;  // (n, d_k)
  std::vector<Index> ids;                // (n)
};

/// One trial of a memory.
class Trial {
 public:
  Trial(const RunConfig& config, Index trial, HeadMemory<double>& memory)
      : config_(config), trial_(trial), memory_(memory) {
    Rng codes = rng(kCodebook);
    codebook_ = normal_rows(codes, config.recall.codebook, d_v_);
    scale_rows_to(1.0, d_v_, codebook_);
  }

  /// Writes the other pairs; returns early once *stop is set.
  void write_stream(const std::atomic<bool>* stop) {
    Rng keys = rng(kStreamKeys);
    Rng ids = rng(kStreamValueIds);
    for (Index left = config_.recall.stream; left > 0; left -= kStreamBlock) {
      if (stop != nullptr && stop->load()) return;
      write(draw(keys, ids, std::min(left, kStreamBlock)));
    }
  }

  /// Writes the n pairs, reads them back and returns the fraction that is decoded right.
  double accuracy() {
    Rng keys = rng(kKeys);
    Rng ids = rng(kValueIds);
    const Pairs pairs = draw(keys, ids, config_.task.n_pairs);
    write(pairs);
    std::vector<double> out(static_cast<std::size_t>(d_v_));
    Index correct = 0;
    for (std::size_t i = 0; i < pairs.ids.size(); ++i) {
      memory_.read(pairs.keys.data() + static_cast<Index>(i) * d_k_, out.data());
      correct += decode(codebook_, out) == pairs.ids[i];
    }
    return static_cast<double>(correct) / static_cast<double>(pairs.ids.size());
  }

 private:
  Rng rng(Substream substream) const {
    return {static_cast<std::uint64_t>(config_.seeds.front()), RngStream::recall,
            static_cast<std::uint32_t>(trial_), substream};
  }

  Pairs draw(Rng& keys, Rng& ids, Index count) const {
    Pairs pairs;
    pairs.directions = normal_rows(keys, count, d_k_);  // raw keys at first
    pairs.keys = pairs.directions;
    if (config_.recall.keys == RecallKeys::feature) {
      double* values = pairs.keys.data();
      mixers::apply_feature_map(mixers::CpuVector<double>{{count * d_k_}}, key_features(mixer_),
                                values);
    }
    scale_rows_to(1.0, d_k_, pairs.keys);
    if (length_) scale_rows_to(*length_, d_k_, pairs.directions);
    pairs.ids.resize(static_cast<std::size_t>(count));
    const auto codes = static_cast<std::uint32_t>(config_.recall.codebook);
    for (Index& id : pairs.ids) id = ids.below(codes);
    return pairs;
  }

  void write(const Pairs& pairs) {
    for (std::size_t i = 0; i < pairs.ids.size(); ++i) {
      const Index at = static_cast<Index>(i) * d_k_;
      if (length_) as_penalty_memory(memory_)->set_direction(pairs.directions.data() + at);
      memory_.write(pairs.keys.data() + at, codebook_.data() + pairs.ids[i] * d_v_);
    }
  }

  const RunConfig& config_;
  Index trial_;
  HeadMemory<double>& memory_;
  const MixerConfig& mixer_ = config_.mixers.front();
  Index d_ = config_.model.d_h;
  Index d_k_ = mixer_layout(mixer_, d_).key_channels(d_);
  Index d_v_ = config_.model.value_channels();
  std::optional<double> length_ = direction_length(mixer_, d_);
  std::vector<double> codebook_;  // (codebook, d_v)
};

}  // namespace

std::vector<double> recall_accuracies(const RunConfig& config, const Context& context,
                                      const std::atomic<bool>* stop) {
  const auto core = make_mixer_core<double>(config.mixers.front(), config.model.d_h, Device::cpu,
                                            Implementation::production);
  const HeadDims dims = head_dims(config.model, 1, 1);
  std::vector<double> accuracies(static_cast<std::size_t>(config.recall.trials));
  parallel_items(context.threads, config.recall.trials, [&](Index trial) {
    if (stop != nullptr && stop->load()) return;
    const auto memory = head_memory(*core, dims);
    Trial run(config, trial, *memory);
    run.write_stream(stop);
    if (stop != nullptr && stop->load()) return;
    accuracies[static_cast<std::size_t>(trial)] = run.accuracy();
  });
  return accuracies;
}

Index Recall::work(const RunConfig& config) {
  const Index n = config.task.n_pairs;
  const auto forward = [&](Index tokens) {
    HeadDims dims = head_dims(config.model, 1, tokens);
    dims.heads = 1;
    return core_work(config.mixers.front(), dims, LatencyPass::forward, kElementBytes).flop;
  };
  const Index decoding = times({2, n, config.recall.codebook, config.model.value_channels()});
  const Index stream = times({config.recall.stream, forward(1)});  // written, not read
  return times({config.recall.trials, plus({forward(n), stream, decoding})});
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
