#include "cli/context.h"

#include <fmt/format.h>

#include <mutex>

#include "cli/output.h"
#include "config/enums.h"
#include "core/error.h"

namespace vla_bench::cli {

int resolve_threads(Index requested) {
  const ThreadChoice choice = choose_threads(requested);
  static std::once_flag warned;  // every cell calls this
  if (!choice.warning.empty()) std::call_once(warned, [&] { log_warning(choice.warning); });
  return choice.threads;
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
