#include <algorithm>
#include <cmath>
#include <numbers>

#include "train/trainer.h"

namespace vla_bench {

double learning_rate(const TrainConfig& config, Index step) {
  if (step < config.warmup) {
    return config.lr * static_cast<double>(step) / static_cast<double>(config.warmup);
  }
  const Index decay = std::max<Index>(1, config.steps - config.warmup);
  const double progress = static_cast<double>(step - config.warmup) / static_cast<double>(decay);
  return config.lr * 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
}

double clip_factor(double gradient_norm, double clip_norm) {
  return std::min(1.0, clip_norm / (gradient_norm + 1e-6));
}

}  // namespace vla_bench
