#include "experiments/cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/count.h"
#include "experiments/list.h"
#include "mixers/work.h"
#include "model/tiny_lm.h"

namespace vla_bench {
namespace {

// An H200 with four to eight trainings at once took 133, 100 and 186 s for 04_capacity, 05_boundary
// and 11_ablations of experiments; these two numbers give 132, 91 and 202 s.
constexpr double kGpuStep = 0.28e-3;        // seconds: the launches of a captured step
constexpr double kGpuTrainingRate = 30e12;  // FLOP/s of the rest
// VLA's step at the published size (10 GFLOP) takes 89 ms on two threads of an AVX-512 processor.
constexpr double kCpuTrainingRate = 50e9;  // FLOP/s and thread
constexpr double kMemoryRate = 2e9;        // FLOP/s and thread, double precision
// Only the production kernels, at long sequences.
constexpr double kGpuLatencyRate = 5e12;  // FLOP/s
constexpr double kCpuLatencyRate = 20e9;  // FLOP/s and thread

/// Threads that step memories: at most one per head or trial.
double memory_seconds(double flop, int threads, Index items) {
  return flop / (kMemoryRate * static_cast<double>(std::min<Index>(threads, items)));
}

/// 1234567 -> "1,234,567".
std::string grouped(Index count) {
  std::string text = std::to_string(count);
  for (auto at = static_cast<Index>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return text;
}

std::string duration(double seconds) {
  if (seconds < 60.0) return fmt::format("{:.0f} s", std::ceil(seconds));
  if (seconds < 7200.0) return fmt::format("{:.0f} min", seconds / 60.0);
  return fmt::format("{:.1f} h", seconds / 3600.0);
}

}  // namespace

double Experiment::seconds(const RunConfig& config, double flop, Device, int threads) {
  return memory_seconds(flop, threads, config.model.n_heads);
}

double Recall::seconds(const RunConfig& config, double flop, Device, int threads) {
  return memory_seconds(flop, threads, config.recall.trials);
}

double Training::seconds(const RunConfig& config, double flop, Device device, int threads) {
  if (device == Device::cpu) return flop / (kCpuTrainingRate * threads);
  return kGpuStep * static_cast<double>(config.train.steps) + flop / kGpuTrainingRate;
}

double Latency::seconds(const RunConfig& config, double flop, Device device, int threads) {
  const LatencyConfig& latency = config.latency;
  const auto timings = static_cast<double>(latency.passes.size() * latency.implementations.size());
  const double rate = device == Device::cuda ? kGpuLatencyRate : kCpuLatencyRate * threads;
  return std::max(timings * latency.max_seconds, flop / rate);
}

Index cores_flop(const RunConfig& config, LatencyPass pass, Index batch, Index layers) {
  const HeadDims dims = head_dims(config.model, batch, sequence_length(config));
  return times({layers, core_work(config.mixers.front(), dims, pass, kElementBytes).flop});
}

Index block_weights(const RunConfig& config) {
  const ParameterTable table = tiny_lm_parameters(config.model, config.mixers.front());
  Index weights = 0;
  for (const Parameter& parameter : table.all()) {
    const bool looked_up = parameter.name == "tok.weight" || parameter.name == "pos.weight";
    const bool vector = parameter.shape.size() < 2;  // biases and norms: of order D
    if (!looked_up && !vector) weights = plus({weights, parameter.size()});
  }
  return weights;
}

Index forward_flop(const RunConfig& config, Index weights, Index batch, Index targets) {
  const Index head = times({config.model.vocab_size, config.model.d_model()});
  return plus({times({2, weights, batch, sequence_length(config)}),
               times({2, head, batch, targets}),
               cores_flop(config, LatencyPass::forward, batch, config.model.mixer_layers())});
}

Index cell_flop(const RunConfig& config) {
  return with_experiment(config.experiment, [&]<class E>() { return E::work(config); });
}

double estimated_seconds(const RunConfig& config, Device device, int threads) {
  const auto flop = static_cast<double>(cell_flop(config));
  return with_experiment(config.experiment,
                         [&]<class E>() { return E::seconds(config, flop, device, threads); });
}

Cost estimate(std::span<const RunConfig> cells, Device device, int threads) {
  Cost cost;
  for (const RunConfig& config : cells) {
    ++cost.cells;
    if (trains(config.experiment)) cost.steps += config.train.steps;
    cost.seconds += estimated_seconds(config, device, threads);
  }
  return cost;
}

std::string describe(const Cost& cost, Device device) {
  const std::string steps =
      cost.steps > 0 ? fmt::format("{} training steps, ", grouped(cost.steps)) : "";
  return fmt::format("{} cell{}, {}about {} of one {} (estimated from counted operations)",
                     grouped(cost.cells), cost.cells == 1 ? "" : "s", steps, duration(cost.seconds),
                     device == Device::cuda ? "GPU" : "CPU");
}

}  // namespace vla_bench
