// Shared by tests of CUDA code.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "core/device.h"
#include "testing/mixer_cases.h"

namespace vla_bench::testing {

/// Whether the environment variable VLA_SMALL_TESTS is set, and not to 0: tests then use the
/// smallest sizes that reach every branch, and do not check times.
inline bool small_tests() {
  const char* value = std::getenv("VLA_SMALL_TESTS");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

}  // namespace vla_bench::testing

/// First line of every test that runs kernels.
#define VLA_NEEDS_GPU()                                              \
  if (!::vla_bench::cuda_status().available) {                       \
    GTEST_SKIP() << "no GPU: " << ::vla_bench::cuda_status().detail; \
  }

/// After VLA_NEEDS_GPU in tests of how long kernels take.
#define VLA_NEEDS_TRUE_TIMES()                                                  \
  if (::vla_bench::testing::small_tests()) {                                    \
    GTEST_SKIP() << "VLA_SMALL_TESTS is set: kernels take longer under a tool"; \
  }

namespace vla_bench::testing {

inline Context gpu_context(Precision precision = Precision::float32) {
  return {.device = Device::cuda, .threads = 1, .precision = precision};
}

/// Compares CUDA in float with the double reference on the CPU: output and every gradient. A
/// `tolerance` of 0 stands for rounding_tolerance<float>.
inline void expect_gpu_matches_reference(MixerCore<float>& core, const MixerConfig& mixer,
                                         const CoreTensors& tensors, double tolerance = 0.0,
                                         Precision precision = Precision::float32) {
  const CoreRun expected = run_core<double>(*reference_core(mixer, tensors.dims.d_h), tensors);
  const CoreRun actual = run_core<float>(core, tensors, gpu_context(precision));
  expect_same_run(actual, expected,
                  tolerance > 0.0 ? tolerance : rounding_tolerance<float>(tensors),
                  describe(tensors.dims) + " cuda");
}
inline void expect_gpu_matches_reference(const MixerConfig& mixer, const CoreTensors& tensors,
                                         double tolerance = 0.0,
                                         Precision precision = Precision::float32) {
  const auto core =
      make_mixer_core<float>(mixer, tensors.dims.d_h, Device::cuda, Implementation::production);
  expect_gpu_matches_reference(*core, mixer, tensors, tolerance, precision);
}

/// Checks that two runs give the same bits.
inline void expect_gpu_repeats(MixerCore<float>& core, const CoreTensors& tensors,
                               Precision precision = Precision::float32) {
  const CoreRun first = run_core<float>(core, tensors, gpu_context(precision));
  const CoreRun second = run_core<float>(core, tensors, gpu_context(precision));
  for (std::size_t i = 0; i < first.all().size(); ++i) {
    EXPECT_EQ(*first.all()[i].second, *second.all()[i].second)
        << first.all()[i].first << " differs between runs";
  }
}
inline void expect_gpu_repeats(const MixerConfig& mixer, const CoreTensors& tensors) {
  const auto core =
      make_mixer_core<float>(mixer, tensors.dims.d_h, Device::cuda, Implementation::production);
  expect_gpu_repeats(*core, tensors);
}

/// The sizes that every CUDA core must pass: all its head sizes; one token; lengths that are and
/// are not multiples of the tiles; one lane and several. VLA_SMALL_TESTS takes fewer of each.
inline std::vector<HeadDims> gpu_shapes() {
  std::vector<HeadDims> shapes;
  if (small_tests()) {
    for (Index d : {8, 16, 32, 64, 128}) {
      shapes.push_back({1, 1, 1, d});
      shapes.push_back({2, 33, 1, d});
    }
    return shapes;
  }
  for (Index d : {8, 16, 32, 64, 128}) {
    for (Index tokens : {1, 2, 7, 16, 17, 33, 64, 73, 130}) shapes.push_back({2, tokens, 3, d});
    shapes.push_back({1, 300, 1, d});
  }
  return shapes;
}

}  // namespace vla_bench::testing
