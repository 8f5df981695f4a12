#include <gtest/gtest.h>

#include "core/error.h"
#include "mixers/registry.h"
#include "mixers/softmax/softmax_cudnn.h"
#include "testing/gpu.h"

namespace vla_bench {
namespace {

using testing::CoreRun;
using testing::CoreTensors;

const MixerConfig kSoftmax{.options = SoftmaxOptions{}};

#define VLA_NEEDS_CUDNN()                                     \
  VLA_NEEDS_GPU();                                            \
  if (!mixers::cudnn_softmax_support(64).ok) {                \
    GTEST_SKIP() << mixers::cudnn_softmax_support(64).reason; \
  }

// Five roundings to bfloat16, each of at most u = 2^-8 of its value, stand between inputs and
// gradients (q or k, v or the upstream gradient, p, dp - sum p dp, the result): 5 u if all pointed
// one way. Computed in double with these roundings put in, 64 Gaussian tokens give 1.4 u.
constexpr double kTolerance = 8 * 0x1p-8;

TEST(CudnnSoftmax, MatchesTheReference) {
  VLA_NEEDS_CUDNN();
  for (const HeadDims& dims : std::vector<HeadDims>{
           {2, 64, 3, 64}, {1, 128, 1, 128}, {2, 100, 2, 32}, {3, 73, 2, 16}, {1, 300, 1, 64}}) {
    const CoreTensors tensors = testing::random_tensors(kSoftmax, dims, 21);
    const CoreRun expected =
        testing::run_core<double>(*testing::reference_core(kSoftmax, dims.d_h), tensors);
    const auto core = mixers::make_cudnn_softmax_core(dims.d_h);
    const CoreRun actual = testing::run_core<float>(*core, tensors, testing::gpu_context());
    testing::expect_same_run(actual, expected, kTolerance, testing::describe(dims) + " cudnn");
    const CoreRun inference =
        testing::run_core<float>(*core, tensors, testing::gpu_context(), false);
    EXPECT_TRUE(testing::near("o at inference", std::span<const double>(inference.o),
                              std::span<const double>(expected.o), kTolerance));
  }
}

// Two sets of inputs are prepared before either is run, as timings that cycle through buffers do.
TEST(CudnnSoftmax, KeepsSetsOfInputsApart) {
  VLA_NEEDS_CUDNN();
  const HeadDims dims{.batch = 1, .tokens = 64, .heads = 1, .d_h = 64};
  const Context context = testing::gpu_context();
  const auto core = mixers::make_cudnn_softmax_core(64);
  struct Set {
    std::vector<double> expected;
    Array<float> q, k, v, o;
    CoreInputs<float> inputs;
  };
  std::vector<Set> sets(2);
  for (Set& set : sets) {
    const CoreTensors tensors = testing::random_tensors(kSoftmax, dims, 31 + (&set - sets.data()));
    const auto upload = [&](const std::vector<double>& values, Array<float>& array) {
      array = testing::to_device(Device::cuda, std::vector<float>(values.begin(), values.end()));
      return HeadView<float>(array.data(), 64, 64);
    };
    set.inputs.dims = dims;
    set.inputs.q = upload(tensors.q, set.q);
    set.inputs.k = upload(tensors.k, set.k);
    set.inputs.v = upload(tensors.v, set.v);
    upload(std::vector<double>(64 * 64), set.o);
    set.expected = testing::run_core<double>(*testing::reference_core(kSoftmax, 64), tensors).o;
    prepare_core<float>(*core, context, set.inputs, nullptr);
  }
  for (Set& set : sets) core->forward(context, set.inputs, {set.o.data(), 64, 64}, nullptr);
  for (Set& set : sets) {
    deliver_core<float>(*core, context, set.inputs, {set.o.data(), 64, 64}, nullptr);
    const std::vector<float> o = testing::to_host(set.o);
    EXPECT_TRUE(testing::near("o", std::span<const double>(std::vector<double>(o.begin(), o.end())),
                              std::span<const double>(set.expected), kTolerance));
  }
}

TEST(CudnnSoftmax, RefusesWhatItCannotRun) {
  VLA_NEEDS_CUDNN();
  EXPECT_FALSE(mixers::cudnn_softmax_support(60).ok);
  EXPECT_THROW(mixers::make_cudnn_softmax_core(60), RunError);
  CoreInputs<float> inputs;
  inputs.dims = {.batch = 1, .tokens = 64, .heads = 1, .d_h = 64};
  EXPECT_THROW(
      mixers::make_cudnn_softmax_core(64)->forward(testing::gpu_context(), inputs, {}, nullptr),
      RunError);
}

}  // namespace
}  // namespace vla_bench
