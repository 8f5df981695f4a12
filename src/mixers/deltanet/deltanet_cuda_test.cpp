#include "testing/gpu.h"
#include "testing/plain_mixers.h"

namespace vla_bench {
namespace {

using namespace vla_bench::testing;

const MixerConfig kPaper{.options = DeltaNetOptions{}};

TEST(DeltaNetCuda, StandardVariantEqualsTheReference) {
  VLA_NEEDS_GPU();
  for (const HeadDims& dims : gpu_shapes()) {
    expect_gpu_matches_reference(kStandardDeltaNet, random_tensors(kStandardDeltaNet, dims, 31));
  }
}

// Gates near 0: a state that is divided by its gate to go back in time would blow up.
TEST(DeltaNetCuda, EqualsTheReferenceWithClosedGates) {
  VLA_NEEDS_GPU();
  CoreTensors tensors = random_tensors(kPaper, {2, 40, 2, 32}, 32);
  for (double& logit : tensors.more[0]) logit = static_cast<float>(logit - 12.0);
  expect_gpu_matches_reference(kPaper, tensors);
}

TEST(DeltaNetCuda, StandardVariantRepeatsBitForBit) {
  VLA_NEEDS_GPU();
  expect_gpu_repeats(kStandardDeltaNet, random_tensors(kStandardDeltaNet, {3, 70, 2, 32}, 33));
}

}  // namespace
}  // namespace vla_bench
