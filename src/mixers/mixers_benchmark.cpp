// Forward and backward of every mixer's core on one thread, against the FMA peak of a core measured
// in the same program. "peak" is the fraction reached by the multiply-adds of the mathematics
// (<name>.h): recomputation and feature maps count as lost time.
#include <benchmark/benchmark.h>

#include <chrono>
#include <ctime>
#include <string>
#include <vector>

#include "config/read.h"
#include "core/rng.h"
#include "core/vectors.h"
#include "mixers/parameters.h"
#include "mixers/registry.h"
#include "mixers/work.h"

namespace vla_bench {
namespace {

constexpr Index kLanes = 4;  // heads of one sequence

/// Multiply-adds per second of a loop that only uses registers: 16 independent chains of vectors
/// cover the latency of every current core.
double measure_fma_peak() {
  using mixers::Vector;
  constexpr int kChains = 16;
  constexpr Index kRounds = 1 << 18;
  Vector<float> chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = mixers::broadcast(static_cast<float>(i));
  Vector<float> factor = mixers::broadcast(0.999F);
  Vector<float> term = mixers::broadcast(1e-3F);
  benchmark::DoNotOptimize(factor);
  benchmark::DoNotOptimize(term);
  double best = 0.0;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (Index round = 0; round < kRounds; ++round) {
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) chains[i] = chains[i] * factor + term;
    }
    for (int i = 0; i < kChains; ++i) benchmark::DoNotOptimize(chains[i]);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const double work = static_cast<double>(kRounds * kChains * mixers::kVectorLength<float>);
    best = std::max(best, work / elapsed.count());
  }
  return best;
}

double fma_peak() {
  static const double peak = measure_fma_peak();
  return peak;
}

void fma_peak_of_a_core(benchmark::State& state) {
  double peak = 0.0;
  for (auto _ : state) peak = std::max(peak, measure_fma_peak());
  state.counters["GFLOP/s"] = 2e-9 * peak;
}
BENCHMARK(fma_peak_of_a_core)->Iterations(3)->Unit(benchmark::kMillisecond);

void run_core(benchmark::State& state, const MixerConfig& mixer, bool backward) {
  const Index d = state.range(0);
  const Index tokens = state.range(1);
  const HeadDims dims{.batch = 1, .tokens = tokens, .heads = kLanes, .d_h = d};
  const Index D = kLanes * d;
  const auto core = make_mixer_core<float>(mixer, d, Device::cpu, Implementation::production);
  const MixerLayout layout = mixer_layout(mixer, d);
  // q, k, v, further projections, o, d_o and the gradients of all projections: (T, H, d) each.
  const std::size_t inputs_count = 3 + layout.more.size();
  std::vector<std::vector<float>> tensors(2 * inputs_count + 2);
  std::uint32_t lane = 0;
  for (std::vector<float>& values : tensors) {
    values.resize(static_cast<std::size_t>(tokens * D));
    Rng rng(1, RngStream::benchmark, 0, lane++);
    for (float& value : values) value = static_cast<float>(rng.normal());
  }
  const auto view = [&](std::size_t i) { return HeadView<float>(tensors[i].data(), D, d); };
  const std::size_t o = inputs_count, first_gradient = inputs_count + 2;
  CoreInputs<float> inputs{dims, view(0), view(1), view(2)};
  CoreGradients<float> gradients{view(o), view(o + 1), view(first_gradient),
                                 view(first_gradient + 1), view(first_gradient + 2)};
  for (std::size_t i = 0; i < layout.more.size(); ++i) {
    inputs.more[i] = view(3 + i);
    gradients.dmore[i] = view(first_gradient + 3 + i);
  }
  std::vector<std::vector<float>> parameters;  // and their gradients
  for (const auto& values : initial_core_parameters(layout, kLanes, 1)) {
    const std::size_t i = parameters.size() / 2;
    for (int copy = 0; copy < 2; ++copy) parameters.emplace_back(values.begin(), values.end());
    inputs.parameters[i] = parameters[2 * i].data();
    gradients.dparameters[i] = parameters[2 * i + 1].data();
  }
  const Context context{.device = Device::cpu, .threads = 1};
  Array<float> saved;
  core->forward(context, inputs, view(o), &saved);
  const std::clock_t start = std::clock();
  for (auto _ : state) {
    if (backward) {
      core->backward(context, inputs, gradients, saved);
    } else {
      core->forward(context, inputs, view(o), nullptr);
    }
    benchmark::ClobberMemory();
  }
  const Work pass = core_work(mixer, dims, backward ? LatencyPass::backward : LatencyPass::forward,
                              sizeof(float));
  // In multiply-adds, like the peak.
  const double work =
      0.5 * static_cast<double>(pass.flop) * static_cast<double>(state.iterations());
  // Processor time, like Google Benchmark's rates, which excludes other load on the machine.
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  state.counters["GFLOP/s"] = 2e-9 * work / seconds;
  state.counters["peak"] = work / seconds / fma_peak();
}

void register_all() {
  std::vector<MixerConfig> variants = every_mixer();
  variants.push_back({.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}});
  for (const MixerConfig& mixer : variants) {
    for (bool backward : {false, true}) {
      const std::string title = mixer_label(mixer) + (backward ? "/backward" : "/forward");
      auto* registered = benchmark::RegisterBenchmark(
          title.c_str(),
          [mixer, backward](benchmark::State& state) { run_core(state, mixer, backward); });
      registered->ArgNames({"d", "T"})->Unit(benchmark::kMicrosecond);
      for (Index d : {16, 32, 64, 128}) registered->Args({d, 73})->Args({d, 512});
    }
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
