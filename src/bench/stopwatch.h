// Timing with a stopping rule: verify first, warm up, repeat until the median is known well enough.
// What runs on a GPU is timed by bench/device_timer.h.
#pragma once

#include <atomic>
#include <functional>
#include <optional>

#include "core/array.h"
#include "core/statistics.h"

namespace vla_bench {

struct TimingRule {
  Index warmup = 2;
  Index min_repeats = 5;
  Index max_repeats = 200;
  double relative_error = 0.02;  // half width of the median's 95% interval over the median
  double max_seconds = 2.0;      // of measured time
  const std::atomic<bool>* stop = nullptr;  // may be null; once set, no more samples are taken

  bool stopped() const { return stop != nullptr && stop->load(); }
};

struct Timing {
  double median_s = 0.0, p10_s = 0.0, p90_s = 0.0;  // p10: 10th percentile
  Index repeats = 0;
  // Half width of the median's 95% interval over the median; empty with fewer than 6 repeats.
  std::optional<double> relative_error{};
};

/// The stopping rule without a clock: `sample` returns the seconds of one more repeat. It is called
/// at least `min_repeats` times (and once), then until the median is known to `relative_error`,
/// there are `max_repeats`, or the samples add up to `max_seconds`. It is not called after a stop;
/// without a sample the result has 0 repeats.
Timing repeat_until_known(const TimingRule& rule, const std::function<double()>& sample);

/// Calls `body` untimed `warmup` times, unless stopped, then times it by the rule.
Timing measure(const TimingRule& rule, const std::function<void()>& body);

/// Measures the GFLOP/s of single-precision matrix products at the published model's size on
/// `threads` threads: the unit of step times.
double sgemm_gflops(int threads);

}  // namespace vla_bench
