// The state of a training run, kept in the memory of the training device: a captured step reads
// from it what changes between steps, and the host reads it only to report progress.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "core/index.h"

namespace vla_bench {

/// Learning rate: linear from 0 over `warmup` steps, then peak (1 + cos(pi r)) / 2, r from 0 to 1
/// over the rest. With `every` > 1 the rest is cut into C parts of that many steps (the last may be
/// shorter), and r is c / C in part c.
struct Schedule {
  double peak = 0.0;
  Index warmup = 0;
  Index steps = 1;
  Index every = 1;  // at least 1
};

/// The learning rate of step s, counted from 0.
VLA_HOST_DEVICE inline double learning_rate(const Schedule& schedule, Index step) {
  if (step < schedule.warmup) {
    return schedule.peak * static_cast<double>(step) / static_cast<double>(schedule.warmup);
  }
  const Index parts = (schedule.steps - schedule.warmup + schedule.every - 1) / schedule.every;
  const Index part = (step - schedule.warmup) / schedule.every;
  const double r = static_cast<double>(part) / static_cast<double>(parts < 1 ? 1 : parts);
  constexpr double kPi = 3.14159265358979323846;
  return schedule.peak * 0.5 * (1.0 + std::cos(kPi * (r < 1.0 ? r : 1.0)));
}

/// Factor that clips a global gradient norm (torch's clip_grad_norm_); 1 for a clip_norm of 0.
inline constexpr double kClipEpsilon = 1e-6;
VLA_HOST_DEVICE inline double clip_factor(double gradient_norm, double clip_norm) {
  if (clip_norm == 0.0) return 1.0;
  const double factor = clip_norm / (gradient_norm + kClipEpsilon);
  return factor < 1.0 ? factor : 1.0;
}

namespace ops {

struct LossSums {
  double loss = 0.0;  // sum over rows
  Index correct = 0;  // rows whose largest logit is the target (first of equals wins)
  Index count = 0;    // rows
};

struct TrainingState {
  Index step = 0;              // optimiser steps done
  LossSums loss;               // of the last batch
  double gradient_norm = 0.0;  // of the last batch, before clipping
  double learning_rate = 0.0;  // of the last step
  Index diverged = 0;          // 1: a loss or norm was not finite, and step counts no further
};

}  // namespace ops
}  // namespace vla_bench
