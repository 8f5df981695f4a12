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
///   training   counted operations (cell_work.h): on a GPU that some trainings share at 30 TFLOP/s
///              and 0.28 ms a step more, on a CPU at 50 GFLOP/s a thread
///   recall, state_norm, jacobian
///              at 2 GFLOP/s a thread: memories are stepped on the CPU, a thread a trial or a head
///   latency    at most latency.max_seconds a timing, longer where min_repeats take longer
double estimated_seconds(const RunConfig& config, Device device, int threads);

Cost estimate(std::span<const RunConfig> cells, Device device, int threads);

/// "240 cells, 720,000 training steps, about 7 min of one GPU (estimated from counted
/// operations)".
std::string describe(const Cost& cost, Device device);

}  // namespace vla_bench
