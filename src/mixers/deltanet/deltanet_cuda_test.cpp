#include "testing/gpu.h"

namespace vla_bench {
namespace {

using namespace vla_bench::testing;

const MixerConfig kPaper{.options = DeltaNetOptions{}};
const MixerConfig kStandard{.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}};

TEST(DeltaNetCuda, StandardVariantEqualsTheReference) {
  VLA_NEEDS_GPU();
  for (const HeadDims& dims : gpu_shapes()) {
    expect_gpu_matches_reference(kStandard, random_tensors(kStandard, dims, 31));
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
  expect_gpu_repeats(kStandard, random_tensors(kStandard, {3, 70, 2, 32}, 33));
}

}  // namespace
}  // namespace vla_bench
