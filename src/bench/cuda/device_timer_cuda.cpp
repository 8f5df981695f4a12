#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "bench/cuda/hold.h"
#include "bench/device_timer.h"
#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/error.h"

namespace vla_bench {
namespace {

using cuda::stream_context;

class Event {
 public:
  Event() { VLA_CUDA(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) { VLA_CUDA(cudaEventRecord(event_, stream)); }
  void wait() { VLA_CUDA(cudaEventSynchronize(event_)); }
  bool passed() {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) {
      // Clears cudaErrorNotReady, which the runtime keeps like an error.
      cudaGetLastError();
      return false;
    }
    VLA_CUDA(status);
    return true;
  }
  double seconds_since(const Event& start) const {
    float milliseconds = 0.0F;
    VLA_CUDA(cudaEventElapsedTime(&milliseconds, start.event_, event_));
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// On top of twice the warm time to queue the body: event records and the odd slow call.
constexpr double kHoldMargin = 20e-6;  // seconds
// A longer first estimate comes from a call that loaded code. The hold grows when it is too short.
constexpr double kLongestFirstHold = 1e-3;
constexpr double kLongestHold = 0.25;

double host_seconds(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Timing measure_device(const TimingRule& rule, const std::function<void(Index call)>& body) {
  const cudaStream_t stream = stream_context().stream();
  Index call = 0;
  double queueing = 0.0;
  for (Index i = 0; i < std::max<Index>(rule.warmup, 2) && !rule.stopped(); ++i) {
    queueing = host_seconds([&] { body(call++); });
    VLA_CUDA(cudaStreamSynchronize(stream));
  }
  double held = std::min(2 * queueing + kHoldMargin, kLongestFirstHold);
  Event start, stop;
  return repeat_until_known(rule, [&] {
    while (true) {
      cuda::hold(stream, static_cast<unsigned long long>(1e9 * held));
      start.record(stream);
      body(call++);
      stop.record(stream);
      const bool late = start.passed();
      stop.wait();
      if (!late) return stop.seconds_since(start);
      held *= 2;
      if (held > kLongestHold) {
        throw RunError(
            "cuda: the host cannot queue the work that is timed before the GPU reaches it: does "
            "the work wait for the device?");
      }
    }
  });
}

GpuMemory gpu_memory() {
  const int device = stream_context().device();
  int l2 = 0;
  VLA_CUDA(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, device));
  std::size_t free = 0, total = 0;
  VLA_CUDA(cudaMemGetInfo(&free, &total));
  cudaMemPool_t pool;
  VLA_CUDA(cudaDeviceGetDefaultMemPool(&pool, device));
  std::uint64_t reserved = 0, used = 0;
  VLA_CUDA(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
  VLA_CUDA(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  return {.l2_bytes = l2,
          .free_bytes =
              static_cast<Index>(free) + static_cast<Index>(reserved) - static_cast<Index>(used)};
}

}  // namespace vla_bench
