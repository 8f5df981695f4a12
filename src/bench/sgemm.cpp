#include "bench/stopwatch.h"
#include "core/rng.h"
#include "ops/ops.h"

namespace vla_bench {
namespace {

// The joint query-key-value projection of the published MQAR model at n = 24:
// batch 64 x 73 tokens, d_model 128.
constexpr Index kRows = 64 * 73;     // M
constexpr Index kColumns = 3 * 128;  // N
constexpr Index kInner = 128;        // K

Array<float> random_array(Index size, std::uint32_t substream) {
  Array<float> array(Device::cpu, size);
  Rng rng(0, RngStream::benchmark, 0, substream);
  for (float& value : array) value = static_cast<float>(rng.uniform() - 0.5);
  return array;
}

}  // namespace

double sgemm_gflops(int threads) {
  const Context context{.device = Device::cpu, .threads = threads};
  const Array<float> x = random_array(kRows * kInner, 0);
  const Array<float> weight = random_array(kColumns * kInner, 1);
  Array<float> y(Device::cpu, kRows * kColumns);
  const ops::LinearForward<float> product{
      .x = {x.data(), kRows, kInner},
      .weight = {weight.data(), kColumns, kInner},
      .y = {y.data(), kRows, kColumns},
  };
  const TimingRule rule{.min_repeats = 5, .max_seconds = 0.5};
  const Timing timing = measure(rule, [&] { ops::linear_forward<float>(context, product); });
  constexpr double kFlops = 2.0 * kRows * kColumns * kInner;
  return kFlops / timing.median_s * 1e-9;
}

}  // namespace vla_bench
