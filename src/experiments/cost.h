// What a suite will take, before it is run: from counted operations and stated rates.
#pragma once

#include <span>
#include <string>

#include "config/read.h"

namespace vla_bench {

struct Cost {
  Index cells = 0;
  Index steps = 0;       // of trainings
  double seconds = 0.0;  // of the device, one cell after another
};

/// Estimated seconds of one cell. Not a measurement: within a factor of two or three on a machine
/// like those the rates were taken on.
///   training   counted operations (cell_work.h) at 10 TFLOP/s on a GPU, where no step takes less
///              than 0.3 ms, and at 50 GFLOP/s a thread on a CPU
///   recall, state_norm, jacobian
///              at 2 GFLOP/s a thread: memories are stepped on the CPU, a thread a trial or a head
///   latency    at most latency.max_seconds a timing, longer where min_repeats take longer
double estimated_seconds(const RunConfig& config, Device device, int threads);

Cost estimate(std::span<const RunConfig> cells, Device device, int threads);

/// "240 cells, 720,000 training steps, about 21 min of one GPU (estimated from counted
/// operations)".
std::string describe(const Cost& cost, Device device);

}  // namespace vla_bench
