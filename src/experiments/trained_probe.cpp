#include "experiments/trained_probe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "config/read.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "experiments/probe.h"
#include "mixers/registry.h"
#include "mixers/value_groups.h"
#include "ops/ops.h"

namespace vla_bench {
namespace {

double dot(const double* a, const double* b, Index d) {
  return std::inner_product(a, a + d, b, 0.0);
}

/// c_h(t).
class Codes {
 public:
  Codes(const RunConfig& config, Index tokens)
      : heads_(config.model.n_heads), d_(config.model.value_channels()) {
    const auto seed = static_cast<std::uint64_t>(config.seeds.front());
    values_.resize(static_cast<std::size_t>(tokens * heads_ * d_));
    for (Index t = 0; t < tokens; ++t) {
      for (Index head = 0; head < heads_; ++head) {
        Rng rng(seed, RngStream::codes, static_cast<std::uint32_t>(t),
                static_cast<std::uint32_t>(head));
        double* code = values_.data() + (t * heads_ + head) * d_;
        for (Index i = 0; i < d_; ++i) code[i] = rng.normal();
        const double length = std::sqrt(dot(code, code, d_));
        for (Index i = 0; i < d_; ++i) code[i] /= length;
      }
    }
  }

  const double* at(Index t, Index head) const {  // (d)
    return values_.data() + (t * heads_ + head) * d_;
  }

 private:
  Index heads_, d_;             // d: of a value
  std::vector<double> values_;  // (T, H, d)
};

/// A delay for each head; a head without one is left out.
constexpr Index kLeftOut = -1;
using Delays = std::vector<Index>;

/// A sequence whose memories, of one layer, are probed.
class ProbedSequence {
 public:
  ProbedSequence(const RunConfig& slice, const Batch& batch, Index row, const Codes& codes)
      : heads_(slice.model.n_heads),
        d_(slice.model.value_channels()),
        tokens_(batch.tokens),
        first_(row * batch.tokens),
        inputs_(batch.inputs.data() + first_),
        targets_(batch.targets.data() + first_),
        codes_(&codes) {
    // Every second token of what is shown is a value.
    for (Index t = 1; t < slice.task.written_tokens(); t += 2) values_at_.push_back(t);
    const auto count = std::count_if(targets_, targets_ + tokens_, is_target);
    reads_.resize(static_cast<std::size_t>(heads_ * count * d_));
  }

  /// Steps an empty memory of one head through the sequence and keeps what it returns.
  void step(Index head, const LayerTokens& layer, HeadMemory<double>& memory) {
    std::vector<double> o(static_cast<std::size_t>(d_));
    ProbeToken token;
    auto read = reads_.begin() + head * static_cast<std::ptrdiff_t>(reads_.size()) / heads_;
    for (Index t = 0; t < tokens_; ++t) {
      layer.read(first_ + t, head, token);
      const double length = std::sqrt(dot(token.v.data(), token.v.data(), d_));
      const double* code = codes_->at(t, head);
      for (Index i = 0; i < d_; ++i) token.v[static_cast<std::size_t>(i)] = length * code[i];
      memory.step(token.view(), o.data());
      if (is_target(targets_[t])) read = std::copy(o.begin(), o.end(), read);
    }
  }

  /// Targets decoded right by the sum over the heads that have a delay.
  Index correct(const Delays& delays) const {
    Index count = 0, target = 0;
    for (Index t = 0; t < tokens_; ++t) {
      if (is_target(targets_[t])) count += inputs_[decode(delays, target++)] == targets_[t];
    }
    return count;
  }

 private:
  static bool is_target(std::int32_t target) { return target != kIgnoreTarget; }

  /// Where the value stands that the read-out of a target is closest to.
  Index decode(const Delays& delays, Index target) const {
    const Index targets = static_cast<Index>(reads_.size()) / (heads_ * d_);
    Index best_at = values_at_.front();
    double best = -std::numeric_limits<double>::infinity();
    for (const Index value_at : values_at_) {
      double score = 0.0;
      for (Index head = 0; head < heads_; ++head) {
        const Index delay = delays[static_cast<std::size_t>(head)];
        if (delay == kLeftOut || value_at + delay >= tokens_) continue;
        const double* read = reads_.data() + (head * targets + target) * d_;
        score += dot(read, codes_->at(value_at + delay, head), d_);
      }
      if (score > best) {
        best = score;
        best_at = value_at;
      }
    }
    return best_at;
  }

  Index heads_, d_, tokens_;
  Index first_;  // row of its first token in (B T)
  const std::int32_t *inputs_, *targets_;
  const Codes* codes_;
  std::vector<Index> values_at_;  // p_i
  std::vector<double> reads_;     // (H, targets, d): o
};

/// The sequences of a slice.
class ProbedSlice {
 public:
  ProbedSlice(const RunConfig& slice, const Batch& batch)
      : codes_(slice, batch.tokens), dims_(head_dims(slice.model, 1, 1)), heads_(dims_.heads) {
    for (Index row = 0; row < batch.batch; ++row) {
      sequences_.emplace_back(slice, batch, row, codes_);
    }
    targets_ = static_cast<Index>(batch.target_rows.size());
  }
  ProbedSlice(const ProbedSlice&) = delete;

  /// Of one layer.
  double accuracy(const LayerTokens& layer, const MixerCore<double>& core, int threads,
                  const std::atomic<bool>* stop) {
    parallel_items(threads, static_cast<Index>(sequences_.size()), [&](Index row) {
      if (stop != nullptr && stop->load()) return;
      ProbedSequence& sequence = sequences_[static_cast<std::size_t>(row)];
      for (Index head = 0; head < heads_; ++head) {
        sequence.step(head, layer, *head_memory(core, dims_, head));
      }
    });
    if (stop != nullptr && stop->load()) return 0.0;
    Delays best(static_cast<std::size_t>(heads_));
    for (Index head = 0; head < heads_; ++head) {
      best[static_cast<std::size_t>(head)] = best_delay(head, threads);
    }
    return static_cast<double>(correct(best, threads)) / static_cast<double>(targets_);
  }

 private:
  Index best_delay(Index head, int threads) const {
    Index best = 0, most = -1;
    for (Index delay = 0; delay <= kMostDelay; ++delay) {
      Delays only(static_cast<std::size_t>(heads_), kLeftOut);
      only[static_cast<std::size_t>(head)] = delay;
      const Index count = correct(only, threads);
      if (count > most) {
        most = count;
        best = delay;
      }
    }
    return best;
  }
  Index correct(const Delays& delays, int threads) const {
    std::vector<Index> counts(sequences_.size());
    parallel_items(threads, static_cast<Index>(counts.size()), [&](Index row) {
      const auto at = static_cast<std::size_t>(row);
      counts[at] = sequences_[at].correct(delays);
    });
    return std::accumulate(counts.begin(), counts.end(), Index{0});
  }

  Codes codes_;
  HeadDims dims_;
  Index heads_, targets_;
  std::vector<ProbedSequence> sequences_;
};

}  // namespace

std::vector<double> probe_accuracies(const RunConfig& config, const MixerConfig& mixer,
                                     const Context& context, TinyLm<float>& model,
                                     const std::atomic<bool>* stop) {
  const auto core =
      make_mixer_core<double>(mixer, config.model.d_h, Device::cpu, Implementation::production);
  std::vector<double> accuracies;
  for (Index first_batch = 0; const Slice& slice : eval_slices(config)) {
    Batch batch;
    make_batch(slice.config, RngStream::eval_batch, first_batch, config.eval.probe_sequences,
               batch);
    first_batch += config.eval.batches;
    ProbedSlice probed(slice.config, batch);
    double best = 0.0;
    for (Index i = 0; i < config.model.n_layers; ++i) {
      if (config.model.layer(i) != LayerKind::mixer) continue;
      const LayerTokens layer(mixer, model.core_inputs(batch, i), context.device);
      best = std::max(best, probed.accuracy(layer, *core, context.threads, stop));
    }
    accuracies.push_back(best);
  }
  return accuracies;
}

}  // namespace vla_bench
