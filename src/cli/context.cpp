#include "cli/context.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "config/enums.h"
#include "core/error.h"

namespace vla_bench::cli {

int resolve_threads(Index requested) {
  if (requested < 0 || requested > kMostThreads) {
    throw BadInput(fmt::format("threads: expected 0 .. {}, got {}", kMostThreads, requested));
  }
  if (requested > 0) return static_cast<int>(requested);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

Context make_context(const std::string& device, Index threads) {
  for (const auto& [request, name] : enum_names<DeviceRequest>) {
    if (name == device) {
      return {.device = resolve_device(request), .threads = resolve_threads(threads)};
    }
  }
  throw BadInput(fmt::format("device: expected auto, cpu or cuda, got \"{}\"", device));
}

}  // namespace vla_bench::cli
