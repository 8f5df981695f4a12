// Comparisons for tests: a failure prints the worst index and both values.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

namespace vla_bench::testing {

/// The largest magnitude.
inline double largest(std::span<const double> values) {
  double result = 0.0;
  for (double value : values) result = std::max(result, std::abs(value));
  return result;
}

struct Worst {
  double error = 0.0;  // max |a - b| / max(max |b|, floor)
  std::size_t index = 0;
};

/// The largest difference relative to the largest expected value (the denominator of the golden
/// files); `floor` bounds that denominator from below.
template <class A, class B>
Worst worst_error(std::span<const A> actual, std::span<const B> expected, double floor = 1e-300) {
  double scale = floor;
  for (const B& value : expected) scale = std::max(scale, std::abs(static_cast<double>(value)));
  Worst worst;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference =
        std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i])) / scale;
    if (!(difference <= worst.error)) worst = {difference, i};  // catches NaN as well
    if (std::isnan(difference)) break;
  }
  return worst;
}

template <class A, class B>
::testing::AssertionResult near(std::string_view what, std::span<const A> actual,
                                std::span<const B> expected, double tolerance,
                                double floor = 1e-300) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << what << ": " << actual.size() << " values, expected " << expected.size();
  }
  const Worst worst = worst_error(actual, expected, floor);
  if (worst.error <= tolerance) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << what << ": relative error " << worst.error << " over " << tolerance << " at index "
         << worst.index << ": got " << actual[worst.index] << ", expected "
         << expected[worst.index];
}

}  // namespace vla_bench::testing
