#include "experiments/trained_probe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "testing/cells.h"

namespace vla_bench {
namespace {

constexpr Context kCpu{Device::cpu, 1};

RunConfig recall_config(const std::string& mixer, const std::string& task) {
  return testing::cell_of(R"({"experiment": "mqar", "seeds": [3], "mixers": [)" + mixer + R"(],
      "model": {"n_heads": 1, "d_h": 128, "n_layers": 1, "d_ff": 0, "vocab_size": 128,
                "positions": false, "short_conv_qkv": 2, "bias": false},
      "task": )" + task + R"(,
      "eval": {"batches": 1, "batch": 8, "probe_sequences": 8}})")
      .config;
}

/// A model whose keys are those of the token before, where k's convolution `delays`, and whose
/// queries are those of the token itself: a memory of it holds every value under its key. Output
/// projection and head stay 0: it has learned to write and to read, and nothing else.
void make_recaller(const RunConfig& config, bool delays, TinyLm<float>& model) {
  std::fill_n(model.values().data(), model.values().size(), 0.0F);
  const Index D = config.model.d_model();
  const auto set = [&](const std::string& suffix, const auto& value_at) {
    bool found = false;
    for (const Parameter& parameter : model.parameters().all()) {
      if (!parameter.name.ends_with(suffix)) continue;
      found = true;
      for (Index i = 0; i < parameter.size(); ++i) {
        model.values()[parameter.offset + i] = value_at(i / parameter.shape.back(), i);
      }
    }
    ASSERT_TRUE(found) << suffix;
  };
  const auto diagonal = [D](float value) {
    return [D, value](Index row, Index i) { return i - row * D == row ? value : 0.0F; };
  };
  const auto tap = [](Index which) {
    return [which](Index, Index i) { return i % 2 == which ? 1.0F : 0.0F; };
  };
  set("tok.weight", diagonal(1.0F));
  for (const Parameter& parameter : model.parameters().all()) {
    if (parameter.initialisation != Initialisation::ones) continue;
    std::fill_n(model.values().data() + parameter.offset, parameter.size(), 1.0F);
  }
  set("Wq.weight", diagonal(20.0F));
  set("Wk.weight", diagonal(20.0F));
  set("Wv.weight", diagonal(1.0F));
  set("q_conv1d.weight", tap(1));
  set("k_conv1d.weight", tap(delays ? 0 : 1));
  set("v_conv1d.weight", tap(1));
}

double probe(const RunConfig& config, bool delays) {
  TinyLm<float> model(config.model, config.mixers.front(), kCpu);
  make_recaller(config, delays, model);
  return probe_accuracy(config, config.mixers.front(), 0, kCpu, model);
}

TEST(TrainedProbe, TellsAMemoryThatHoldsItsPairsFromOneThatDoesNot) {
  for (const char* task : {R"({"n_pairs": 8})", R"({"n_pairs": 8, "layout": "zoology"})",
                           R"({"n_pairs": 8, "passes": 2})"}) {
    const RunConfig config = recall_config(R"("linear")", task);
    EXPECT_GT(probe(config, true), 0.85) << task;
    EXPECT_LT(probe(config, false), 0.5) << task;
  }
}

TEST(TrainedProbe, IsTheSameForAnyNumberOfThreads) {
  const RunConfig config = recall_config(R"("vla")", R"({"n_pairs": 20})");
  TinyLm<float> model(config.model, config.mixers.front(), kCpu);
  model.initialise(5);
  const auto probe = [&](int threads) {
    return probe_accuracy(config, config.mixers.front(), 0, {Device::cpu, threads}, model);
  };
  const double accuracy = probe(1);
  EXPECT_EQ(accuracy, probe(3));
  EXPECT_LT(accuracy, 0.5);  // nothing learned
}

}  // namespace
}  // namespace vla_bench
