// Operands in the memory of a context's device, so that one function tests an operation on the CPU
// in double and on the GPU in float.
#pragma once

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "testing/gpu.h"
#include "testing/operands.h"

namespace vla_bench::testing {

/// Standard normal values times `scale`, rounded to float, so that both devices see the same
/// values.
inline std::vector<double> random_floats(Index count, std::uint32_t index, double scale = 1.0) {
  return to_double(random_values<float>(count, index, scale));
}

/// Integers in -4 .. 4, exact in bfloat16. Their products and sums are exact in float up to 2^24,
/// so results must be equal for any order of the sums.
inline std::vector<double> random_integers(Index count, std::uint32_t index) {
  Rng rng(11, RngStream::benchmark, index, 0);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& value : values) value = static_cast<double>(rng.below(9)) - 4.0;
  return values;
}

/// NaN, for memory that an operation has to write before it may be read.
inline std::vector<double> poison(Index count) {
  return std::vector<double>(static_cast<std::size_t>(count),
                             std::numeric_limits<double>::quiet_NaN());
}

/// A matrix inside a wider one. The gap between rows holds a sentinel that no operation may
/// overwrite and that spoils the result of one that reads it.
template <class T>
class Operand {
 public:
  Operand(const Context& context, Index rows, Index cols, Index gap,
          const std::vector<double>& values)
      : rows_(rows), cols_(cols), stride_(cols + gap) {
    std::vector<T> host(static_cast<std::size_t>(rows_ * stride_), kSentinel);
    for (Index i = 0; i < rows_; ++i) {
      for (Index j = 0; j < cols_; ++j)
        host[i * stride_ + j] = static_cast<T>(values[i * cols_ + j]);
    }
    array_ = to_device(context.device, host);
  }
  /// One row, with a gap behind it.
  Operand(const Context& context, const std::vector<double>& values)
      : Operand(context, 1, static_cast<Index>(values.size()), 3, values) {}

  Matrix<T> view() { return {array_.data(), rows_, cols_, stride_}; }
  T* data() { return array_.data(); }

  /// Returns the current values; fails the test when a gap was overwritten.
  std::vector<double> values() const {
    const std::vector<T> host = to_host(array_);
    std::vector<double> result;
    for (Index i = 0; i < rows_; ++i) {
      const auto row = host.begin() + i * stride_;
      result.insert(result.end(), row, row + cols_);
      for (Index j = cols_; j < stride_; ++j) {
        EXPECT_EQ(row[j], kSentinel) << "wrote outside its columns in row " << i;
      }
    }
    return result;
  }

 private:
  static constexpr T kSentinel = T(777);
  Index rows_, cols_, stride_;
  Array<T> array_;
};

/// A result of an operation: name, values, and the GPU's tolerance relative to the largest value
/// (0: must be equal).
struct Output {
  std::string name;
  std::vector<double> values;
  double tolerance = 0.0;
  double floor = 1e-300;  // least value that errors are relative to
};
using Outputs = std::vector<Output>;

/// run.template operator()<T>(context) returns Outputs. Compares CUDA in float with the CPU in
/// double, and checks that two runs give the same bits.
template <class Run>
void expect_gpu_matches_cpu(const Run& run, Precision precision = Precision::float32) {
  const Outputs expected = run.template operator()<double>(Context{});
  const Outputs actual = run.template operator()<float>(gpu_context(precision));
  const Outputs again = run.template operator()<float>(gpu_context(precision));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Output& output = expected[i];
    EXPECT_TRUE(near(output.name, actual[i].values, output.values, output.tolerance, output.floor));
    EXPECT_EQ(actual[i].values, again[i].values) << output.name << " differs between runs";
  }
}

}  // namespace vla_bench::testing
