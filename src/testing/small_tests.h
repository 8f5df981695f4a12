// Tests under a tool that makes kernels a hundred times slower (compute-sanitizer) ask for less.
#pragma once

#include <cstdlib>
#include <string_view>

namespace vla_bench::testing {

/// Whether the environment has VLA_SMALL_TESTS set to anything but 0: sizes shrink to what still
/// reaches every branch, and nothing is said about times.
inline bool small_tests() {
  const char* value = std::getenv("VLA_SMALL_TESTS");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

}  // namespace vla_bench::testing
