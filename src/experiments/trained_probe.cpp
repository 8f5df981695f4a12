#include "experiments/trained_probe.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

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
      : config_(slice), batch_(batch), first_(row * batch.tokens), layer_(layer), codes_(codes) {
    // Every second token of what is shown is a value.
    for (Index t = 1; t < slice.task.written_tokens(); t += 2) {
      written_.insert(batch.inputs[first_ + t]);
    }
    scores_.resize(static_cast<std::size_t>(batch.tokens) * written_.size());
  }

  /// Steps an empty memory of one head through the sequence and adds its part to the scores.
  void step(Index head, HeadMemory<double>& memory) {
    const Index d = config_.model.d_h;
    std::vector<double> o(static_cast<std::size_t>(d));
    ProbeToken token;
    auto score = scores_.begin();
    for (Index t = 0; t < batch_.tokens; ++t) {
      layer_.read(first_ + t, head, token);
      const double length = std::sqrt(dot(token.v.data(), token.v.data(), d));
      const double* code = codes_.of(batch_.inputs[first_ + t], head);
      for (Index i = 0; i < d; ++i) token.v[static_cast<std::size_t>(i)] = length * code[i];
      memory.step(token.view(), o.data());
      for (const Index value : written_) *score++ += dot(o.data(), codes_.of(value, head), d);
    }
  }

  /// Targets decoded right by the scores of all heads.
  Index correct() const {
    Index count = 0;
    const std::vector<Index> values(written_.begin(), written_.end());
    const auto n = static_cast<std::ptrdiff_t>(values.size());
    for (Index t = 0; t < batch_.tokens; ++t) {
      const std::int32_t target = batch_.targets[first_ + t];
      if (target == kIgnoreTarget) continue;
      const auto scores = scores_.begin() + t * n;
      const auto best = std::max_element(scores, scores + n) - scores;
      count += values[static_cast<std::size_t>(best)] == target;
    }
    return count;
  }

 private:
  const RunConfig& config_;
  const Batch& batch_;
  Index first_;  // row of its first token in (B T)
  const LayerTokens& layer_;
  const Codes& codes_;
  std::set<Index> written_;
  std::vector<double> scores_;  // (T, written values)
};

}  // namespace

double probe_accuracy(const RunConfig& slice, const MixerConfig& mixer, Index first_batch,
                      const Context& context, TinyLm<float>& model, const std::atomic<bool>* stop) {
  const ModelConfig& sizes = slice.model;
  Batch batch;
  make_batch(slice, RngStream::eval_batch, first_batch, slice.eval.probe_sequences, batch);
  const LayerTokens layer(mixer, model.core_inputs(batch, sizes.last_mixer_layer()),
                          context.device);
  const Codes codes(slice);
  const auto core =
      make_mixer_core<double>(mixer, sizes.d_h, Device::cpu, Implementation::production);
  std::vector<Index> correct(static_cast<std::size_t>(batch.batch));
  parallel_items(context.threads, batch.batch, [&](Index row) {
    if (stop != nullptr && stop->load()) return;
    ProbedSequence sequence(slice, batch, row, layer, codes);
    for (Index head = 0; head < sizes.n_heads; ++head) sequence.step(head, *core->memory(head));
    correct[static_cast<std::size_t>(row)] = sequence.correct();
  });
  return static_cast<double>(std::accumulate(correct.begin(), correct.end(), Index{0})) /
         static_cast<double>(batch.target_rows.size());
}

}  // namespace vla_bench
