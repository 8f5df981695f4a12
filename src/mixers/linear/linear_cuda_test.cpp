#include "testing/gpu.h"

namespace vla_bench {
namespace {

using namespace vla_bench::testing;

constexpr MixerConfig kLinear{.options = LinearOptions{}};

TEST(LinearCuda, EqualsTheReference) {
  VLA_NEEDS_GPU();
  for (const HeadDims& dims : gpu_shapes()) {
    expect_gpu_matches_reference(kLinear, random_tensors(kLinear, dims, 21));
  }
}

// Strongly negative raw keys and queries: z . q' falls below its floor.
TEST(LinearCuda, EqualsTheReferenceWithActiveFloors) {
  VLA_NEEDS_GPU();
  const HeadDims dims{.batch = 2, .tokens = 21, .heads = 2, .d_h = 16};
  expect_gpu_matches_reference(kLinear, random_tensors(kLinear, dims, 22, 1.0, -9.0));
}

TEST(LinearCuda, RepeatsBitForBit) {
  VLA_NEEDS_GPU();
  expect_gpu_repeats(kLinear, random_tensors(kLinear, {3, 70, 2, 32}, 23));
}

}  // namespace
}  // namespace vla_bench
