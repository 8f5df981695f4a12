// What every mixer of the list has to pass on a GPU.
#include "config/read.h"
#include "testing/gpu.h"

namespace vla_bench {
namespace {

using namespace vla_bench::testing;

/// 0: rounding_tolerance. The first steps of kalman subtract numbers 1 + 1 / lambda_0 times as
/// large as their difference.
double tolerance_of(const MixerConfig& mixer, const HeadDims& dims) {
  const auto* filter = mixer.get_if<KalmanOptions>();
  return filter == nullptr ? 0.0 : (1.0 + 1.0 / filter->lambda_0) * rounding_tolerance<float>(dims);
}

TEST(MixersCuda, EqualTheReference) {
  VLA_NEEDS_GPU();
  for (const MixerConfig& mixer : every_mixer()) {
    SCOPED_TRACE(mixer.name());
    for (const HeadDims& dims : gpu_shapes()) {
      expect_gpu_matches_reference(mixer, random_tensors(mixer, dims, 21),
                                   tolerance_of(mixer, dims));
    }
  }
}

// Strongly negative raw keys and queries: where the read is divided by z . q', that falls below its
// floor.
TEST(MixersCuda, EqualTheReferenceWithActiveFloors) {
  VLA_NEEDS_GPU();
  const HeadDims dims{.batch = 2, .tokens = 21, .heads = 2, .d_h = 16};
  for (const MixerConfig& mixer :
       {MixerConfig{.options = LinearOptions{}}, MixerConfig{.options = VlaOptions{}}}) {
    expect_gpu_matches_reference(mixer, random_tensors(mixer, dims, 22, 1.0, -9.0));
  }
}

/// Those whose values can be wider than their keys.
std::vector<MixerConfig> mixers_with_wide_values() {
  std::vector<MixerConfig> mixers = {
      {.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}}};
  for (const MixerConfig& mixer : every_mixer()) {
    if (why_values_are_as_wide_as_keys(mixer.options).empty()) mixers.push_back(mixer);
  }
  return mixers;
}

/// Two and three groups of d channels, and d_v = d_h.
std::vector<HeadDims> wide_shapes() {
  return {{1, 1, 2, 8, 16},     {2, 33, 3, 16, 32},   {2, 73, 2, 32, 96},
          {1, 130, 1, 64, 128}, {2, 17, 1, 128, 256}, {1, 9, 2, 32, 32}};
}

TEST(MixersCuda, EqualTheReferenceWithWideValues) {
  VLA_NEEDS_GPU();
  for (const MixerConfig& mixer : mixers_with_wide_values()) {
    SCOPED_TRACE(mixer_label(mixer));
    std::vector<HeadDims> shapes = wide_shapes();
    if (mixer_support(mixer, 256, Device::cuda, Implementation::recurrent).ok) {
      shapes.push_back({2, 20, 1, 256, 512});
    }
    for (const HeadDims& dims : shapes) {
      const auto core =
          make_mixer_core<float>(mixer, dims.d_h, Device::cuda, Implementation::recurrent);
      const CoreTensors tensors = random_tensors(mixer, dims, 24);
      expect_gpu_matches_reference(*core, mixer, tensors);
      expect_gpu_repeats(*core, tensors);
    }
  }
}

// The forward and the backward that production takes, of 400 tokens in segments.
TEST(MixersCuda, EqualTheReferenceInChunksWithWideValues) {
  VLA_NEEDS_GPU();
  for (const MixerConfig& mixer : mixers_with_wide_values()) {
    SCOPED_TRACE(mixer_label(mixer));
    std::vector<HeadDims> shapes = wide_shapes();
    shapes.push_back({1, 400, 2, 64, 128});
    for (const HeadDims& dims : shapes) {
      const auto core =
          make_mixer_core<float>(mixer, dims.d_h, Device::cuda, Implementation::chunked);
      const CoreTensors tensors = random_tensors(mixer, dims, 24);
      // The gradients of a decay's parameters add up over tokens and cancel.
      const double summed = tensors.parameters.empty() ? 1.0 : 4.0;
      expect_gpu_matches_reference(*core, mixer, tensors, summed * rounding_tolerance<float>(dims));
      expect_gpu_repeats(*core, tensors);
    }
  }
}

TEST(MixersCuda, EqualTheReferenceOfLargeHeads) {
  VLA_NEEDS_GPU();
  std::size_t count = 0;
  for (const MixerConfig& mixer : every_mixer()) {
    if (!mixer_support(mixer, 256, Device::cuda, Implementation::production).ok) continue;
    ++count;
    SCOPED_TRACE(mixer.name());
    for (const HeadDims& dims : {HeadDims{1, 1, 1, 256}, {2, 33, 2, 256}, {1, 130, 1, 256}}) {
      expect_gpu_matches_reference(mixer, random_tensors(mixer, dims, 25));
    }
    expect_gpu_repeats(mixer, random_tensors(mixer, {2, 33, 2, 256}, 25));
  }
  // softmax, linear, deltanet, retention, gated_deltanet, mamba2, kda, gla,
  // preconditioned_gated_deltanet
  EXPECT_EQ(count, 9);
}

TEST(MixersCuda, NameTheHeadSizesTheyHave) {
  const auto support = [](const MixerOptions& mixer, Index d_h, Implementation implementation) {
    return mixer_support({.options = mixer}, d_h, Device::cuda, implementation);
  };
  for (const MixerOptions& mixer : {MixerOptions(SoftmaxOptions{}), MixerOptions(KdaOptions{})}) {
    EXPECT_TRUE(support(mixer, 256, Implementation::production).ok);
    EXPECT_EQ(support(mixer, 24, Implementation::production).reason,
              "cuda: kernels exist for d_h of 8, 16, 32, 64, 128 or 256, not 24");
  }
  EXPECT_EQ(support(VlaOptions{}, 256, Implementation::production).reason,
            "cuda: kernels exist for d_h of 8, 16, 32, 64 or 128, not 256");
  EXPECT_TRUE(support(KdaOptions{}, 256, Implementation::recurrent).ok);
  EXPECT_EQ(support(KdaOptions{}, 256, Implementation::chunked).reason,
            "cuda: chunks exist for d_h up to 128, not 256");
}

bool has_chunks(const MixerConfig& mixer) {
  return mixer_support(mixer, 16, Device::cuda, Implementation::chunked).ok;
}

TEST(MixersCuda, HaveChunksUnlessValueChannelsDecayApart) {
  EXPECT_TRUE(has_chunks({.options = LinearOptions{}}));
  EXPECT_TRUE(has_chunks({.options = VlaOptions{}}));
  EXPECT_TRUE(has_chunks({.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}}));
  EXPECT_FALSE(has_chunks({.options = DeltaNetOptions{.variant = DeltaNetVariant::paper}}));
  EXPECT_FALSE(has_chunks({.options = SoftmaxOptions{}}));
}

TEST(MixersCuda, EqualTheReferenceInChunks) {
  VLA_NEEDS_GPU();
  std::vector<HeadDims> shapes = gpu_shapes();
  shapes.push_back({1, 400, 2, 64});  // of more than one segment
  for (const MixerConfig& mixer : every_mixer()) {
    if (!has_chunks(mixer)) continue;
    SCOPED_TRACE(mixer.name());
    for (const HeadDims& dims : shapes) {
      const auto core =
          make_mixer_core<float>(mixer, dims.d_h, Device::cuda, Implementation::chunked);
      // The gradients of a decay's parameters add up over tokens and cancel.
      const double summed = mixer_layout(mixer, dims.d_h).parameters.empty() ? 1.0 : 4.0;
      expect_gpu_matches_reference(
          *core, mixer, random_tensors(mixer, dims, 21),
          std::max(tolerance_of(mixer, dims), summed * rounding_tolerance<float>(dims)));
    }
  }
}

// The forward on bfloat16 tensors; beside their rounding o's own.
TEST(MixersCuda, EqualTheReferenceInChunksOfBfloat16) {
  VLA_NEEDS_GPU();
  constexpr double kAllowed = 8 * 0x1p-8;
  const Context context = gpu_context(Precision::bf16);
  for (const MixerConfig& mixer : every_mixer()) {
    if (!has_chunks(mixer) ||
        implementation_precision(mixer, Device::cuda, Implementation::chunked, LatencyPass::forward,
                                 Precision::bf16) != Precision::bf16) {
      continue;
    }
    SCOPED_TRACE(mixer.name());
    const bool wide = why_values_are_as_wide_as_keys(mixer.options).empty();
    for (const HeadDims& dims :
         {HeadDims{2, 33, 2, 8}, {2, 33, 2, 32}, {1, 400, 2, 64}, {2, 33, 2, 32, wide ? 64 : 0}}) {
      const CoreTensors tensors = random_tensors(mixer, dims, 21);
      const auto core =
          make_mixer_core<float>(mixer, dims.d_h, Device::cuda, Implementation::chunked);
      const CoreRun actual = run_core<float>(*core, tensors, context, false);
      const CoreRun expected = run_core<double>(*reference_core(mixer, dims.d_h), tensors);
      double worst = 0.0, largest = 0.0;
      for (std::size_t i = 0; i < expected.o.size(); ++i) {
        const double error = std::abs(actual.o[i] - expected.o[i]);
        if (!(error <= worst)) worst = error;
        largest = std::max(largest, std::abs(expected.o[i]));
      }
      EXPECT_LE(worst, kAllowed * largest) << describe(dims);
      EXPECT_GT(worst, 0x1p-12 * largest) << "not rounded to bfloat16";
    }
  }
}

TEST(MixersCuda, RepeatBitForBitInChunks) {
  VLA_NEEDS_GPU();
  for (const MixerConfig& mixer : every_mixer()) {
    if (!has_chunks(mixer)) continue;
    SCOPED_TRACE(mixer.name());
    const auto core = make_mixer_core<float>(mixer, 32, Device::cuda, Implementation::chunked);
    expect_gpu_repeats(*core, random_tensors(mixer, {1, 400, 2, 32}, 23));
  }
}

TEST(MixersCuda, RepeatBitForBit) {
  VLA_NEEDS_GPU();
  for (const MixerConfig& mixer : every_mixer()) {
    SCOPED_TRACE(mixer.name());
    expect_gpu_repeats(mixer, random_tensors(mixer, {3, 70, 2, 32}, 23));
  }
}

}  // namespace
}  // namespace vla_bench
