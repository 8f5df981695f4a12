// The largest error of computed values.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace vla_bench {

/// max |x|; 0 without values.
inline double largest(const std::vector<double>& values) {
  double result = 0.0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

/// max |actual - expected| / scale; infinity where that is no number.
template <class T>
double worst_error(const std::vector<T>& actual, const std::vector<double>& expected,
                   double scale) {
  double worst = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]) / scale;
    if (!std::isfinite(error)) return HUGE_VAL;
    worst = std::max(worst, error);
  }
  return worst;
}

}  // namespace vla_bench
