#include "bench/ceilings.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "bench/cuda_ceilings.h"
#include "bench/stopwatch.h"

namespace vla_bench {
namespace {

/// Bytes of one array of the copy on the CPU: source and destination together are four times the
/// last-level cache. The bounds are for systems that report no size (0), or the caches of a whole
/// host.
std::size_t cpu_copy_bytes() {
  constexpr std::size_t kLeast = std::size_t{64} << 20;
  constexpr std::size_t kMost = std::size_t{512} << 20;
  const long last_cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return std::clamp(2 * static_cast<std::size_t>(std::max(last_cache, 0L)), kLeast, kMost);
}

double cpu_copy_rate(int threads) {
  const std::size_t bytes = cpu_copy_bytes();
  Array<char> from(Device::cpu, static_cast<Index>(bytes));
  Array<char> to(Device::cpu, static_cast<Index>(bytes));
  const std::size_t block = (bytes + static_cast<std::size_t>(threads) - 1) / threads;
  const auto copy = [&] {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int thread = 0; thread < threads; ++thread) {
      const std::size_t first = std::min(bytes, static_cast<std::size_t>(thread) * block);
      std::memcpy(to.data() + first, from.data() + first, std::min(block, bytes - first));
    }
  };
  const TimingRule rule{.warmup = 1, .min_repeats = 5, .max_seconds = 0.5};
  return 2.0 * static_cast<double>(bytes) / measure(rule, copy).median_s;
}

Ceilings measure_ceilings(const Context& context) {
  if (context.device == Device::cuda) return cuda::measure_ceilings(context.precision);
  return {.flops_per_s = 1e9 * sgemm_gflops(context.threads),
          .bytes_per_s = cpu_copy_rate(context.threads)};
}

}  // namespace

const Ceilings& measured_ceilings(const Context& context) {
  // (device, GPU or threads, precision)
  using Key = std::tuple<Device, int, Precision>;
  static std::mutex mutex;
  static std::map<Key, Ceilings> known;
  const Key key = context.device == Device::cuda
                      ? Key(Device::cuda, cuda::current_device(), context.precision)
                      : Key(Device::cpu, context.threads, Precision::float32);
  // Held while measuring, since concurrent measurements would disturb each other.
  const std::lock_guard lock(mutex);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  return known.emplace(key, measure_ceilings(context)).first->second;
}

}  // namespace vla_bench
