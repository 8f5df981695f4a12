#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "bench/ceilings.h"
#include "bench/cuda/hold.h"
#include "bench/device_timer.h"
#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/error.h"
#include "testing/gpu.h"

namespace vla_bench {
namespace {

constexpr TimingRule kFixed{.warmup = 2, .min_repeats = 11, .max_repeats = 11};

void sleep_us(int microseconds) {
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

TEST(DeviceTimer, CountsCallsFromTheFirstWarmUp) {
  VLA_NEEDS_GPU();
  std::vector<Index> calls;
  const cudaStream_t stream = cuda::stream_context().stream();
  const Timing timing = measure_device(kFixed, [&](Index call) {
    calls.push_back(call);
    cuda::hold(stream, 1000);
  });
  EXPECT_EQ(timing.repeats, 11);
  // Discarded samples count as calls.
  ASSERT_GE(calls.size(), 13U);
  for (std::size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(calls[i], static_cast<Index>(i));
}

// A kernel that waits 200 us cannot take less; two events and a launch take a few microseconds, and
// the GPU's timer may tick once a microsecond or two.
TEST(DeviceTimer, MeasuresTheDevice) {
  VLA_NEEDS_GPU();
  VLA_NEEDS_TRUE_TIMES();
  const cudaStream_t stream = cuda::stream_context().stream();
  const Timing timing = measure_device(kFixed, [&](Index) { cuda::hold(stream, 200'000); });
  EXPECT_GE(timing.median_s, 197e-6);
  EXPECT_LE(timing.median_s, 230e-6);
}

// The host takes 500 us between two kernels of 10 us each, none of which may be counted.
TEST(DeviceTimer, LeavesTheHostOut) {
  VLA_NEEDS_GPU();
  VLA_NEEDS_TRUE_TIMES();
  const cudaStream_t stream = cuda::stream_context().stream();
  const Timing timing = measure_device(kFixed, [&](Index) {
    cuda::hold(stream, 10'000);
    sleep_us(500);
    cuda::hold(stream, 10'000);
  });
  EXPECT_GE(timing.median_s, 18e-6);
  EXPECT_LE(timing.p90_s, 60e-6);
}

// Warm calls determine the first hold; later calls that are slower to queue must not count.
TEST(DeviceTimer, HoldsLongerWhenTheHostIsLate) {
  VLA_NEEDS_GPU();
  VLA_NEEDS_TRUE_TIMES();
  const cudaStream_t stream = cuda::stream_context().stream();
  Index slow = 0;
  const Timing timing = measure_device(kFixed, [&](Index call) {
    cuda::hold(stream, 10'000);
    if (call >= 2) {
      sleep_us(3000);
      ++slow;
    }
    cuda::hold(stream, 10'000);
  });
  EXPECT_GT(slow, 11) << "no sample was discarded";
  EXPECT_LE(timing.p90_s, 60e-6);
}

TEST(DeviceTimer, RefusesABodyThatWaits) {
  VLA_NEEDS_GPU();
  const cudaStream_t stream = cuda::stream_context().stream();
  EXPECT_THROW(measure_device(kFixed,
                              [&](Index) {
                                cuda::hold(stream, 1000);
                                VLA_CUDA(cudaStreamSynchronize(stream));
                              }),
               RunError);
}

// The fourth sample sets the flag; if it was late it is repeated, with the stream held for twice as
// long each time: 20 doublings are more than the timer allows.
TEST(DeviceTimer, EndsWhenStopped) {
  VLA_NEEDS_GPU();
  const cudaStream_t stream = cuda::stream_context().stream();
  std::atomic<bool> stop = false;
  Index calls = 0;
  const TimingRule rule{
      .warmup = 2, .min_repeats = 1000, .max_repeats = 1000, .max_seconds = 60, .stop = &stop};
  const auto body = [&](Index call) {
    cuda::hold(stream, 1000);
    ++calls;
    if (call >= 5) stop = true;
  };
  const Timing timing = measure_device(rule, body);
  EXPECT_GE(timing.repeats, 1);
  EXPECT_LE(timing.repeats, 4);
  EXPECT_LT(calls, 6 + 20);
  calls = 0;
  EXPECT_EQ(measure_device(rule, body).repeats, 0);
  EXPECT_EQ(calls, 0);
}

TEST(DeviceTimer, KnowsTheMemoryOfTheGpu) {
  VLA_NEEDS_GPU();
  const GpuMemory before = gpu_memory();
  EXPECT_GT(before.l2_bytes, Index{1} << 20);
  constexpr Index kTaken = Index{256} << 20;
  Array<char> taken(Device::cuda, kTaken);
  device_wait(Device::cuda);
  const GpuMemory during = gpu_memory();
  // Only half, since other programs may share the GPU and pools grow in large steps.
  EXPECT_LE(during.free_bytes, before.free_bytes - kTaken / 2);
  taken = Array<char>();
  device_wait(Device::cuda);
  EXPECT_GE(gpu_memory().free_bytes, during.free_bytes + kTaken / 2)
      << "memory that the program keeps for its next allocations counts as free";
}

// Any GPU with code for this program: 5 to 1,000 TFLOP/s, 0.1 to 20 TB/s. Tensor cores are no
// slower than plain float32.
TEST(Ceilings, ArePlausibleOnTheGpu) {
  VLA_NEEDS_GPU();
  VLA_NEEDS_TRUE_TIMES();
  const Ceilings& plain = measured_ceilings(testing::gpu_context());
  EXPECT_GT(plain.flops_per_s, 5e12);
  EXPECT_LT(plain.flops_per_s, 1e15);
  EXPECT_GT(plain.bytes_per_s, 1e11);
  EXPECT_LT(plain.bytes_per_s, 2e13);
  const Ceilings& tf32 = measured_ceilings(testing::gpu_context(Precision::tf32));
  EXPECT_GT(tf32.flops_per_s, 0.9 * plain.flops_per_s);
  EXPECT_EQ(&plain, &measured_ceilings(testing::gpu_context()));
}

}  // namespace
}  // namespace vla_bench
