// Shared by the fuzz targets. A target reads untrusted bytes. BadInput is the only exception that a
// reader may throw: any other escapes the target, which libFuzzer and replay_main.cpp report as a
// crash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/error.h"

namespace vla_bench::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Whether `read` accepts its input; false when it throws BadInput.
template <class Read>
bool accepts(const Read& read) {
  try {
    read();
    return true;
  } catch (const BadInput&) {
    return false;
  }
}

/// Checks a property of what was read; aborts when it does not hold.
inline void require(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", property);
  std::abort();
}

}  // namespace vla_bench::fuzz
