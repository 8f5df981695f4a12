#include "experiments/trained_probe.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "config/read.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "experiments/probe.h"
#include "mixers/registry.h"
#include "ops/ops.h"

namespace vla_bench {
namespace {

double dot(const double* a, const double* b, Index d) {
  return std::inner_product(a, a + d, b, 0.0);
}

/// c_h(x).
class Codes {
 public:
  explicit Codes(const RunConfig& config) : heads_(config.model.n_heads), d_(config.model.d_h) {
    const auto seed = static_cast<std::uint64_t>(config.seeds.front());
    values_.resize(static_cast<std::size_t>(config.model.vocab_size * heads_ * d_));
    for (Index token = 0; token < config.model.vocab_size; ++token) {
      for (Index head = 0; head < heads_; ++head) {
        Rng rng(seed, RngStream::codes, static_cast<std::uint32_t>(token),
                static_cast<std::uint32_t>(head));
        double* code = values_.data() + (token * heads_ + head) * d_;
        for (Index i = 0; i < d_; ++i) code[i] = rng.normal();
        const double length = std::sqrt(dot(code, code, d_));
        for (Index i = 0; i < d_; ++i) code[i] /= length;
      }
    }
  }

  const double* of(Index token, Index head) const {  // (d)
    return values_.data() + (token * heads_ + head) * d_;
  }

 private:
  Index heads_, d_;
  std::vector<double> values_;  // (V, H, d)
};

/// A sequence whose memories are probed.
class ProbedSequence {
 public:
  ProbedSequence(const RunConfig& slice, const Batch& batch, Index row, const LayerTokens& layer,
                 const Codes& codes)
      : d_(slice.model.d_h),
        tokens_(batch.tokens),
        first_(row * batch.tokens),
        inputs_(batch.inputs.data() + first_),
        targets_(batch.targets.data() + first_),
        layer_(layer),
        codes_(codes) {
    std::set<Index> written;
    // Every second token of what is shown is a value.
    for (Index t = 1; t < slice.task.written_tokens(); t += 2) written.insert(inputs_[t]);
    written_.assign(written.begin(), written.end());
    const auto count = std::count_if(targets_, targets_ + tokens_, is_target);
    scores_.resize(static_cast<std::size_t>(count) * written_.size());
  }

  /// Steps an empty memory of one head through the sequence and adds its part to the scores.
  void step(Index head, HeadMemory<double>& memory) {
    std::vector<double> o(static_cast<std::size_t>(d_));
    ProbeToken token;
    auto score = scores_.begin();
    for (Index t = 0; t < tokens_; ++t) {
      layer_.read(first_ + t, head, token);
      const double length = std::sqrt(dot(token.v.data(), token.v.data(), d_));
      const double* code = codes_.of(inputs_[t], head);
      for (Index i = 0; i < d_; ++i) token.v[static_cast<std::size_t>(i)] = length * code[i];
      memory.step(token.view(), o.data());
      if (!is_target(targets_[t])) continue;
      for (const Index value : written_) *score++ += dot(o.data(), codes_.of(value, head), d_);
    }
  }

  /// Targets decoded right by the scores of all heads.
  Index correct() const {
    Index count = 0;
    auto scores = scores_.begin();
    for (Index t = 0; t < tokens_; ++t) {
      if (!is_target(targets_[t])) continue;
      const auto end = scores + static_cast<std::ptrdiff_t>(written_.size());
      const auto best = std::max_element(scores, end) - scores;
      count += written_[static_cast<std::size_t>(best)] == targets_[t];
      scores = end;
    }
    return count;
  }

 private:
  static bool is_target(std::int32_t target) { return target != kIgnoreTarget; }

  Index d_, tokens_;
  Index first_;  // row of its first token in (B T)
  const std::int32_t *inputs_, *targets_;
  const LayerTokens& layer_;
  const Codes& codes_;
  std::vector<Index> written_;  // ascending
  std::vector<double> scores_;  // (targets, written values)
};

}  // namespace

std::vector<double> probe_accuracies(const RunConfig& config, const MixerConfig& mixer,
                                     const Context& context, TinyLm<float>& model,
                                     const std::atomic<bool>* stop) {
  const ModelConfig& sizes = config.model;
  const Codes codes(config);
  const auto core =
      make_mixer_core<double>(mixer, sizes.d_h, Device::cpu, Implementation::production);
  std::vector<double> accuracies;
  for (Index first_batch = 0; const Slice& slice : eval_slices(config)) {
    Batch batch;
    make_batch(slice.config, RngStream::eval_batch, first_batch, config.eval.probe_sequences,
               batch);
    first_batch += config.eval.batches;
    const LayerTokens layer(mixer, model.core_inputs(batch, sizes.last_mixer_layer()),
                            context.device);
    std::vector<Index> correct(static_cast<std::size_t>(batch.batch));
    parallel_items(context.threads, batch.batch, [&](Index row) {
      if (stop != nullptr && stop->load()) return;
      ProbedSequence sequence(slice.config, batch, row, layer, codes);
      for (Index head = 0; head < sizes.n_heads; ++head) sequence.step(head, *core->memory(head));
      correct[static_cast<std::size_t>(row)] = sequence.correct();
    });
    const Index sum = std::accumulate(correct.begin(), correct.end(), Index{0});
    accuracies.push_back(static_cast<double>(sum) / static_cast<double>(batch.target_rows.size()));
  }
  return accuracies;
}

}  // namespace vla_bench
