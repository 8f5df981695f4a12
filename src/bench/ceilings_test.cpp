#include "bench/ceilings.h"

#include <gtest/gtest.h>

namespace vla_bench {
namespace {

TEST(Ceilings, ArePlausibleOnTheCpu) {
  const Ceilings& ceilings = measured_ceilings({.device = Device::cpu, .threads = 2});
  // For two cores of any age: an unoptimised scalar loop reaches 1e8 FLOP/s and 1e8 B/s; no two
  // cores reach 20 TFLOP/s or 1 TB/s of memory bandwidth.
  EXPECT_GT(ceilings.flops_per_s, 1e7);
  EXPECT_LT(ceilings.flops_per_s, 2e13);
  EXPECT_GT(ceilings.bytes_per_s, 1e8);
  EXPECT_LT(ceilings.bytes_per_s, 1e12);
}

TEST(Ceilings, AreMeasuredOnceForEachNumberOfThreads) {
  const Ceilings& first = measured_ceilings({.device = Device::cpu, .threads = 1});
  const Ceilings& again = measured_ceilings({.device = Device::cpu, .threads = 1});
  const Ceilings& others = measured_ceilings({.device = Device::cpu, .threads = 2});
  EXPECT_EQ(&first, &again);
  EXPECT_NE(&first, &others);
  // The CPU computes in float32 whatever the precision.
  EXPECT_EQ(&first, &measured_ceilings(
                        {.device = Device::cpu, .threads = 1, .precision = Precision::bf16}));
}

}  // namespace
}  // namespace vla_bench
