#include <cuda_runtime_api.h>

#include <algorithm>

#include "bench/cuda_ceilings.h"
#include "bench/device_timer.h"
#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/rng.h"

namespace vla_bench::cuda {
namespace {

// 1.1 TFLOP: some 20 ms in float32, long enough to fill the GPU evenly and to reach its sustained
// clock.
constexpr Index kSize = 8192;
constexpr Index kCopyBytes = Index{1} << 30;

// Half a second each.
constexpr TimingRule kRule{.min_repeats = 5, .relative_error = 0.005, .max_seconds = 0.5};

/// Random values: power, and with it the clock, depends on how many bits switch, and zeros are
/// cheap. 2^20 of them are drawn, and repeated: drawing all would take longer than the timing.
Array<float> random_matrix(std::uint32_t substream) {
  constexpr Index kDrawn = Index{1} << 20;
  static_assert(kSize * kSize % kDrawn == 0);
  Array<float> drawn(Device::cpu, kDrawn);
  Rng rng(0, RngStream::benchmark, 0, substream);
  for (float& value : drawn) value = static_cast<float>(rng.uniform() - 0.5);
  Array<float> matrix(Device::cuda, kSize * kSize);
  const auto bytes = static_cast<std::size_t>(drawn.bytes());
  device_copy(Device::cuda, matrix.data(), Device::cpu, drawn.data(), bytes);
  for (Index done = kDrawn; done < matrix.size(); done += kDrawn) {
    device_copy(Device::cuda, matrix.data() + done, Device::cuda, matrix.data(), bytes);
  }
  return matrix;
}

double product_rate(Precision precision) {
  const Context context{.device = Device::cuda, .threads = 1, .precision = precision};
  const Array<float> x = random_matrix(0);
  const Array<float> weight = random_matrix(1);
  Array<float> y(Device::cuda, kSize * kSize);
  const ops::LinearForward<float> product{.x = {x.data(), kSize, kSize},
                                          .weight = {weight.data(), kSize, kSize},
                                          .y = {y.data(), kSize, kSize}};
  const Timing timing =
      measure_device(kRule, [&](Index) { ops::linear_forward<float>(context, product); });
  constexpr double kFlop = 2.0 * kSize * kSize * kSize;
  return kFlop / timing.median_s;
}

double copy_rate() {
  const Array<char> from(Device::cuda, kCopyBytes);
  Array<char> to(Device::cuda, kCopyBytes);
  const cudaStream_t stream = stream_context().stream();
  const Timing timing = measure_device(kRule, [&](Index) {
    VLA_CUDA(cudaMemcpyAsync(to.data(), from.data(), kCopyBytes, cudaMemcpyDeviceToDevice, stream));
  });
  return 2.0 * static_cast<double>(kCopyBytes) / timing.median_s;
}

}  // namespace

int current_device() { return stream_context().device(); }

Ceilings measure_ceilings(Precision precision) {
  return {.flops_per_s = product_rate(precision), .bytes_per_s = copy_rate()};
}

}  // namespace vla_bench::cuda
