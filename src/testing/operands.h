// Random operands in strided storage, exact comparison over threads, central differences.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "core/rng.h"
#include "ops/ops.h"
#include "testing/compare.h"

namespace vla_bench::testing {

template <class T>
inline constexpr double kEpsilon = std::numeric_limits<T>::epsilon();

/// Standard normal values, rounded to T; another `index` gives other values.
template <class T>
std::vector<T> random_values(Index count, std::uint32_t index, double scale = 1.0) {
  Rng rng(7, RngStream::benchmark, index, 0);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = static_cast<T>(scale * rng.normal());
  return values;
}

/// A matrix inside a wider one, like views of joint buffers. The gap between rows holds a sentinel
/// that no operation may overwrite.
template <class T>
class Strided {
 public:
  Strided(Index rows, Index cols, Index gap)
      : rows_(rows),
        cols_(cols),
        stride_(cols + gap),
        storage_(static_cast<std::size_t>(rows * stride_), kSentinel) {}
  Strided(Index rows, Index cols, Index gap, const std::vector<T>& values)
      : Strided(rows, cols, gap) {
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j) view().row(i)[j] = values[i * cols + j];
    }
  }

  Matrix<T> view() { return {storage_.data(), rows_, cols_, stride_}; }
  std::vector<T> values() {
    std::vector<T> result;
    for (Index i = 0; i < rows_; ++i) {
      result.insert(result.end(), view().row(i), view().row(i) + cols_);
    }
    return result;
  }
  bool gaps_untouched() {
    for (Index i = 0; i < rows_; ++i) {
      for (Index j = cols_; j < stride_; ++j) {
        if (storage_[i * stride_ + j] != kSentinel) return false;
      }
    }
    return true;
  }

 private:
  static constexpr T kSentinel = T(777);
  Index rows_, cols_, stride_;
  std::vector<T> storage_;
};

template <class T>
std::vector<double> to_double(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}

/// `tolerance` is relative to the largest expected value, or to `floor` where that is larger.
template <class T>
::testing::AssertionResult near(std::string_view what, const std::vector<T>& actual,
                                const std::vector<double>& expected, double tolerance,
                                double floor = 1e-300) {
  return near(what, std::span<const T>(actual), std::span<const double>(expected), tolerance,
              floor);
}

/// Checks that the vector that run(context) returns has the same bits on 1, 2 and 3 threads.
template <class Run>
void expect_same_on_any_threads(const Run& run) {
  const auto once = run(Context{.threads = 1});
  EXPECT_EQ(once, run(Context{.threads = 2}));
  EXPECT_EQ(once, run(Context{.threads = 3}));
}

/// Central difference of `loss` along every element of `x`; O(h^2) truncation against O(eps / h)
/// rounding is best near h = 1e-5 for functions of order one: about 1e-10 relative, tests allow
/// 1e-7.
template <class Loss>
std::vector<double> central_differences(std::vector<double>& x, const Loss& loss) {
  constexpr double kStep = 1e-5;
  std::vector<double> gradient;
  for (double& value : x) {
    const double kept = value;
    value = kept + kStep;
    const double above = loss();
    value = kept - kStep;
    const double below = loss();
    value = kept;
    gradient.push_back((above - below) / (2 * kStep));
  }
  return gradient;
}
inline constexpr double kDifferenceTolerance = 1e-7;

}  // namespace vla_bench::testing
