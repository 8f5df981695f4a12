// One whole training step (batch, forward, backward, clipping, AdamW) of the published model at
// n = 24: batch 64, T = 73, d_model 128, 4 heads, 2 layers.
//
// Counted work (two operations per multiply-add): 311 k weights in products x 4,672 tokens x 6 is
// 8.7 GFLOP for every mixer; the VLA recurrence adds 1.8. The counter `sgemm_gflop` is step seconds
// x the SGEMM rate measured in the same run: the step's cost in units that do not depend on the
// machine's speed.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "mixers/registry.h"
#include "ops/ops.h"
#include "train/training_step.h"

namespace vla_bench {
namespace {

/// GFLOP/s of float products at the model's own size, (4672, 128) by (384, 128)^T, on `threads`.
double sgemm_rate(const Context& context) {
  constexpr Index M = 4672, K = 128, N = 384;
  Array<float> x(Device::cpu, M * K), w(Device::cpu, N * K), y(Device::cpu, M * N);
  for (Index i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13) * 0.1f;
  for (Index i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i % 7) * 0.1f;
  double best = 1e30;
  for (int repeat = 0; repeat < 30; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    ops::linear_forward<float>(context, {.x = {x.data(), M, K},
                                         .weight = {w.data(), N, K},
                                         .bias = nullptr,
                                         .y = {y.data(), M, N}});
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return 2.0 * M * K * N / best * 1e-9;
}

void training_step(benchmark::State& state, const MixerConfig& mixer) {
  const Context context{.device = Device::cpu, .threads = static_cast<int>(state.range(0))};
  RunConfig config;
  config.task.n_pairs = 24;
  TinyLm<float> model(config.model, mixer, context);
  model.initialise(42);
  OptimiserState<float> optimiser(context, model.values().size());
  TrainingStep<float> step(context, config, model, optimiser);
  for (auto _ : state) step.request();
  const double rate = sgemm_rate(context);
  state.counters["sgemm_rate"] = rate;
  // kIsRate divides by the seconds of all iterations, kInvert inverts that.
  state.counters["sgemm_gflop"] =
      benchmark::Counter(static_cast<double>(state.iterations()) / rate,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void register_all() {
  for (const MixerConfig& mixer : every_mixer()) {
    const std::string title = "training_step/" + std::string(mixer.name());
    benchmark::RegisterBenchmark(title.c_str(), training_step, mixer)
        ->DenseRange(1, 2)
        ->ArgName("threads")
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  }
}

}  // namespace
}  // namespace vla_bench

int main(int argc, char** argv) {
  vla_bench::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
