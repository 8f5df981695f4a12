// The state of a training run, kept in the memory of the training device: a captured step reads
// from it what changes between steps, and the host reads it only to report progress.
#pragma once

#include <cmath>

#include "core/array.h"
#include "core/host_device.h"

namespace vla_bench {

/// Learning rate: linear from 0 over `warmup` steps, then peak (1 + cos(pi r)) / 2, r from 0 to 1
/// over the rest.
struct Schedule {
  double peak = 0.0;
  Index warmup = 0;
  Index steps = 1;
};

/// The learning rate of step s, counted from 0.
VLA_HOST_DEVICE inline double learning_rate(const Schedule& schedule, Index step) {
  if (step < schedule.warmup) {
    return schedule.peak * static_cast<double>(step) / static_cast<double>(schedule.warmup);
  }
  const Index rest = schedule.steps - schedule.warmup;
  const double r =
      static_cast<double>(step - schedule.warmup) / static_cast<double>(rest < 1 ? 1 : rest);
  constexpr double kPi = 3.14159265358979323846;
  return schedule.peak * 0.5 * (1.0 + std::cos(kPi * (r < 1.0 ? r : 1.0)));
}

/// Factor that clips a global gradient norm (torch's clip_grad_norm_).
inline constexpr double kClipEpsilon = 1e-6;
VLA_HOST_DEVICE inline double clip_factor(double gradient_norm, double clip_norm) {
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
