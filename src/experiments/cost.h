// The cost of cells before they run: counted operations, by which cells are distributed to shards,
// and seconds estimated from them.
#pragma once

#include <span>
#include <string>

#include "config/read.h"

namespace vla_bench {

/// Floating-point operations of a cell (a config with one mixer and one seed), two for each
/// multiply-add, counted from its mathematics as mixers/work.h does for the cores:
///
///   mqar, copy   steps x (6 x weights x rows, 6 x head x rows with a target, the cores' forward
///                and backward), each size of task.train_segments in its part of the steps, and a
///                forward of every evaluation batch, also of the tests of train.stop_accuracy;
///                a training that stops early has fewer
///   recall       trials x (n writes and reads, n decodings among the codebook)
///   state_norm   T steps of the memories; from a model also its forward
///   jacobian     that, a rank-one product a step and two SVDs at each recorded token
///   latency      the calls that every timing makes at least (more follow until it is exact)
///
/// Operations are not seconds, since mixers reach different rates. They are integers, since every
/// machine must distribute a sweep alike and the last bit of a sum of fractions depends on the
/// build.
Index cell_flop(const RunConfig& config);

// Operations shared by cells of several experiments:

inline constexpr Index kElementBytes = 4;  // of no consequence for them
/// A pass of the cores of `layers` layers.
Index cores_flop(const RunConfig& config, LatencyPass pass, Index batch, Index layers);
/// Weights by which a token is multiplied in the blocks, without the head.
Index block_weights(const RunConfig& config);
/// A forward of the model over `batch` rows, with `targets` positions per row through the head.
Index forward_flop(const RunConfig& config, Index weights, Index batch, Index targets);

struct Cost {
  Index cells = 0;
  Index steps = 0;       // of trainings
  double seconds = 0.0;  // of the device, one cell after another
};

/// Estimated seconds of one cell, right within a factor of two or three on machines like those on
/// which the rates were measured.
///   training   counted operations: on a GPU that some trainings share at 30 TFLOP/s
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
