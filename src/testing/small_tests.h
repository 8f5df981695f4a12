// Smaller tests under tools that make kernels a hundred times slower (compute-sanitizer).
#pragma once

#include <cstdlib>
#include <string_view>

namespace vla_bench::testing {

/// Whether the environment variable VLA_SMALL_TESTS is set, and not to 0: tests then use the smallest
/// sizes that reach every branch, and do not check times.
inline bool small_tests() {
  const char* value = std::getenv("VLA_SMALL_TESTS");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

}  // namespace vla_bench::testing
