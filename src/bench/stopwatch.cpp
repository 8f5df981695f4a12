#include "bench/stopwatch.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

namespace vla_bench {
namespace {

/// Half the width of the median's 95% interval over the median.
std::optional<double> relative_error(const std::vector<double>& seconds) {
  const auto interval = median_interval_95(seconds);
  if (!interval) return {};
  const double half_width = (interval->second - interval->first) / 2;
  // Times below the clock's resolution are zeros.
  return half_width > 0.0 ? half_width / quantile(seconds, 0.5) : 0.0;
}

}  // namespace

Timing repeat_until_known(const TimingRule& rule, const std::function<double()>& sample) {
  const Index min_repeats = std::max<Index>(rule.min_repeats, 1);
  const Index max_repeats = std::max(rule.max_repeats, min_repeats);
  std::vector<double> seconds;
  double total = 0.0;
  Index next_check = min_repeats;
  for (Index repeats = 1; repeats <= max_repeats && !rule.stopped(); ++repeats) {
    seconds.push_back(sample());
    total += seconds.back();
    if (repeats < min_repeats) continue;
    if (total >= rule.max_seconds) break;
    if (repeats < next_check) continue;
    if (const auto error = relative_error(seconds); error && *error <= rule.relative_error) break;
    // A check sorts all times, so checks become rarer as their number grows.
    next_check = repeats + 1 + repeats / 16;
  }
  if (seconds.empty()) return {};
  return {.median_s = quantile(seconds, 0.5),
          .p10_s = quantile(seconds, 0.1),
          .p90_s = quantile(seconds, 0.9),
          .repeats = static_cast<Index>(seconds.size()),
          .relative_error = relative_error(seconds)};
}

Timing measure(const TimingRule& rule, const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  for (Index i = 0; i < rule.warmup && !rule.stopped(); ++i) body();
  return repeat_until_known(rule, [&] {
    const Clock::time_point start = Clock::now();
    body();
    return std::chrono::duration<double>(Clock::now() - start).count();
  });
}

}  // namespace vla_bench
