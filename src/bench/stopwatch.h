// Timing with a stopping rule: verify first, warm up, repeat until the median is known well enough.
#pragma once

#include <atomic>
#include <functional>

#include "core/array.h"
#include "core/statistics.h"

namespace vla_bench {

struct TimingRule {
  Index warmup = 2;
  Index min_repeats = 5;
  Index max_repeats = 200;
  double relative_error = 0.02;  // half width of the median's 95% interval over the median
  double max_seconds = 2.0;
  const std::atomic<bool>* stop = nullptr;  // may be null; set: measuring ends with what it has
};

struct Timing {
  double median_s = 0.0, p10_s = 0.0, p90_s = 0.0;  // p10: 10th percentile
  Index repeats = 0;
};

/// Calls `body` untimed `warmup` times, then timed: at least `min_repeats` times (and once), then
/// until the median is known to `relative_error`, `max_repeats` are reached or `max_seconds` have
/// passed. Once stopped it calls no more; without a timed call the result is that of 0 repeats.
Timing measure(const TimingRule& rule, const std::function<void()>& body);

/// GFLOP/s of single-precision matrix products at the published model's size on `threads` threads,
/// measured now: the yardstick for step times.
double sgemm_gflops(int threads);

}  // namespace vla_bench
