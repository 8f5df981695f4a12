// Paths of the source tree for tests.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace vla_bench::testing {

/// The environment variable `name` when it is set and not empty, else `otherwise`.
inline std::string environment_or(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

/// Root of the source tree: the environment variable VLA_SOURCE_DIR, for a build on another machine,
/// else the path at compile time.
inline std::filesystem::path source_dir() {
  return environment_or("VLA_SOURCE_DIR", VLA_SOURCE_DIR);
}

inline std::filesystem::path golden_dir() { return source_dir() / "src" / "testing" / "golden"; }

}  // namespace vla_bench::testing
