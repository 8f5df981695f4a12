#include "experiments/cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/cell_work.h"

namespace vla_bench {
namespace {

// An H200 with four to eight trainings at once took 133, 100 and 186 s for 04_capacity, 05_boundary
// and 11_ablations of experiments, and 43 s for a twelfth of 12_fair_track/rates; these two numbers
// give 132, 91, 202 and 36 s.
constexpr double kGpuStep = 0.28e-3;        // seconds: the launches of a recorded step
constexpr double kGpuTrainingRate = 30e12;  // FLOP/s beyond that
// VLA's step at the published size (10 GFLOP) takes 89 ms on two threads of an AVX-512 processor.
constexpr double kCpuTrainingRate = 50e9;  // FLOP/s and thread
constexpr double kMemoryRate = 2e9;        // FLOP/s and thread, double precision
// The production kernels alone, at long sequences.
constexpr double kGpuLatencyRate = 5e12;  // FLOP/s
constexpr double kCpuLatencyRate = 20e9;  // FLOP/s and thread

double training_seconds(const RunConfig& config, double flop, Device device, int threads) {
  if (device == Device::cpu) return flop / (kCpuTrainingRate * threads);
  return kGpuStep * static_cast<double>(config.train.steps) + flop / kGpuTrainingRate;
}

/// Of probes at most as many threads work as there are heads or trials.
double memory_seconds(const RunConfig& config, double flop, int threads) {
  const bool recall = config.experiment == ExperimentKind::recall;
  const Index items = recall ? config.recall.trials : config.model.n_heads;
  return flop / (kMemoryRate * static_cast<double>(std::min<Index>(threads, items)));
}

double latency_seconds(const RunConfig& config, double flop, Device device, int threads) {
  const LatencyConfig& latency = config.latency;
  const auto timings = static_cast<double>(latency.passes.size() * latency.implementations.size());
  const double rate = device == Device::cuda ? kGpuLatencyRate : kCpuLatencyRate * threads;
  return std::max(timings * latency.max_seconds, flop / rate);
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

double estimated_seconds(const RunConfig& config, Device device, int threads) {
  const auto flop = static_cast<double>(cell_flop(config));
  switch (config.experiment) {
    case ExperimentKind::mqar:
    case ExperimentKind::copy:
      return training_seconds(config, flop, device, threads);
    case ExperimentKind::recall:
    case ExperimentKind::state_norm:
    case ExperimentKind::jacobian:
      return memory_seconds(config, flop, threads);
    case ExperimentKind::latency:
      return latency_seconds(config, flop, device, threads);
  }
  return 0.0;
}

Cost estimate(std::span<const RunConfig> cells, Device device, int threads) {
  Cost cost;
  for (const RunConfig& config : cells) {
    ++cost.cells;
    const bool trains =
        config.experiment == ExperimentKind::mqar || config.experiment == ExperimentKind::copy;
    if (trains) cost.steps += config.train.steps;
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
