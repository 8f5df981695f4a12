#include "mixers/retention/retention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "testing/mixer_cases.h"

namespace vla_bench::testing {
namespace {

const MixerConfig kRetention{.options = RetentionOptions{}};

TEST(Retention, MeetsTheContract) { expect_contract(kRetention); }

// o_t = sum_{s<=t} gamma_h^(t-s) v_s (k_s . q_t) / sqrt(d), evaluated pair by pair.
TEST(Retention, EqualsItsParallelForm) {
  const HeadDims dims{.batch = 1, .tokens = 45, .heads = 3, .d_h = 16};
  const CoreTensors tensors = random_tensors(kRetention, dims, 7);
  const auto at = [&](Index t, Index h, Index i) {
    return static_cast<std::size_t>((t * dims.heads + h) * dims.d_h + i);
  };
  std::vector<double> expected(tensors.q.size(), 0.0);
  for (Index h = 0; h < dims.heads; ++h) {
    const double gamma = 1.0 - std::exp2(-5.0 - static_cast<double>(h));
    for (Index t = 0; t < dims.tokens; ++t) {
      for (Index s = 0; s <= t; ++s) {
        double weight = 0.0;
        for (Index i = 0; i < dims.d_h; ++i) {
          weight += tensors.k[at(s, h, i)] * tensors.q[at(t, h, i)];
        }
        weight *= std::pow(gamma, static_cast<double>(t - s)) / 4.0;
        for (Index i = 0; i < dims.d_h; ++i) {
          expected[at(t, h, i)] += weight * tensors.v[at(s, h, i)];
        }
      }
    }
  }
  for (const auto& core :
       {production_core<double>(kRetention, 16), reference_core(kRetention, 16)}) {
    const CoreRun run = run_core<double>(*core, tensors, 1, false);
    EXPECT_TRUE(near("o", std::span<const double>(run.o), std::span<const double>(expected),
                     rounding_tolerance<double>(dims)));
  }
}

TEST(Retention, MemoryOfAHeadForgetsAtItsOwnRate) {
  const auto core = production_core<double>(kRetention, 2);
  for (Index head : {0, 3}) {
    const auto memory = core->memory(head);
    const double key1[] = {1, 0}, value1[] = {3, 4}, key2[] = {0, 1}, value2[] = {5, 6};
    memory->write(key1, value1);
    memory->write(key2, value2);
    double out[2];
    memory->read(key1, out);
    const double gamma = 1.0 - std::exp2(-5.0 - static_cast<double>(head));
    EXPECT_EQ(out[0], 3 * gamma);
    EXPECT_EQ(out[1], 4 * gamma);
    const StepJacobian jacobian = memory->jacobian().value();
    EXPECT_EQ(jacobian.decay, std::vector<double>(2, gamma));
    EXPECT_EQ(jacobian.k, std::vector<double>(2, 0.0));
  }
}

}  // namespace
}  // namespace vla_bench::testing
