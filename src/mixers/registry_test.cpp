#include "mixers/registry.h"

#include <gtest/gtest.h>

namespace vla_bench {
namespace {

constexpr Implementation kAll[] = {Implementation::production, Implementation::recurrent,
                                   Implementation::chunked,    Implementation::unfused,
                                   Implementation::cudnn,      Implementation::reference};

TEST(Registry, SoftmaxAloneHasOtherImplementationsAndNotOnTheCpu) {
  const MixerConfig softmax{.options = SoftmaxOptions{}};
  const MixerConfig vla{.options = VlaOptions{}};
  for (const Implementation implementation : {Implementation::unfused, Implementation::cudnn}) {
    EXPECT_FALSE(mixer_support(softmax, 64, Device::cpu, implementation).ok);
    for (const Device device : {Device::cpu, Device::cuda}) {
      const Support support = mixer_support(vla, 64, device, implementation);
      EXPECT_FALSE(support.ok);
      EXPECT_NE(support.reason.find("is softmax"), std::string::npos) << support.reason;
    }
  }
  EXPECT_TRUE(mixer_support(vla, 64, Device::cpu, Implementation::production).ok);
  EXPECT_TRUE(mixer_support(vla, 64, Device::cpu, Implementation::reference).ok);
  EXPECT_FALSE(mixer_support(softmax, 64, Device::cuda, Implementation::reference).ok);
}

TEST(Registry, SoftmaxByTheBookHasNoBackward) {
  for (const Implementation implementation : kAll) {
    EXPECT_TRUE(pass_support(implementation, LatencyPass::forward).ok);
    EXPECT_EQ(pass_support(implementation, LatencyPass::backward).ok,
              implementation != Implementation::unfused);
  }
}

TEST(Registry, PrecisionIsThatOfSoftmaxAndChunksOnAGpu) {
  const auto precision = [](const MixerOptions& mixer, Device device,
                            Implementation implementation) {
    return implementation_precision({.options = mixer}, device, implementation,
                                    LatencyPass::forward, Precision::tf32);
  };
  EXPECT_EQ(precision(SoftmaxOptions{}, Device::cuda, Implementation::production), Precision::tf32);
  EXPECT_EQ(precision(SoftmaxOptions{}, Device::cuda, Implementation::unfused), Precision::tf32);
  EXPECT_EQ(precision(SoftmaxOptions{}, Device::cuda, Implementation::cudnn), Precision::bf16);
  EXPECT_EQ(precision(SoftmaxOptions{}, Device::cpu, Implementation::production),
            Precision::float32);
  EXPECT_EQ(precision(VlaOptions{}, Device::cuda, Implementation::production), Precision::float32);
  EXPECT_EQ(precision(VlaOptions{}, Device::cuda, Implementation::recurrent), Precision::float32);
  EXPECT_EQ(precision(VlaOptions{}, Device::cuda, Implementation::chunked), Precision::tf32);
}

TEST(Registry, ForwardsInChunksReadAndWriteBfloat16) {
  const auto precision = [](const MixerOptions& mixer, LatencyPass pass) {
    return implementation_precision({.options = mixer}, Device::cuda, Implementation::chunked, pass,
                                    Precision::bf16);
  };
  const DeltaNetOptions delta{.variant = DeltaNetVariant::standard};
  for (const MixerOptions& mixer : {MixerOptions(delta), MixerOptions(LinearOptions{}),
                                    MixerOptions(VlaOptions{}), MixerOptions(KalmanOptions{})}) {
    EXPECT_EQ(precision(mixer, LatencyPass::forward), Precision::bf16);
    EXPECT_EQ(precision(mixer, LatencyPass::backward), Precision::tf32);
  }
  // A decay per key channel keeps float.
  EXPECT_EQ(precision(KdaOptions{}, LatencyPass::forward), Precision::tf32);
}

TEST(Registry, ChunksAreOfRecurrencesOnAGpu) {
  const auto support = [](const MixerOptions& mixer, Implementation implementation) {
    return mixer_support({.options = mixer}, 16, Device::cpu, implementation);
  };
  EXPECT_TRUE(support(VlaOptions{}, Implementation::recurrent).ok);
  EXPECT_EQ(support(VlaOptions{}, Implementation::chunked).reason, "chunked runs only on a GPU");
  for (Implementation implementation : {Implementation::recurrent, Implementation::chunked}) {
    EXPECT_FALSE(support(SoftmaxOptions{}, implementation).ok);
  }
}

TEST(Registry, ProductionTakesChunksWhereTheyAreFaster) {
  const auto takes = [](const MixerOptions& mixer, const HeadDims& dims) {
    return resolved(Implementation::production, {.options = mixer}, dims, Device::cuda) ==
           Implementation::chunked;
  };
  // {batch, tokens, heads, d_h}
  const DeltaNetOptions delta{.variant = DeltaNetVariant::standard};
  const DeltaNetOptions value_gates{.variant = DeltaNetVariant::paper};
  VlaOptions frozen;
  frozen.penalty = Penalty::frozen;
  for (const MixerOptions& mixer :
       {MixerOptions(delta), MixerOptions(LinearOptions{}), MixerOptions(frozen)}) {
    EXPECT_FALSE(takes(mixer, {4, 511, 1, 64}));
    EXPECT_TRUE(takes(mixer, {4, 512, 1, 64}));
  }
  EXPECT_FALSE(takes(delta, {512, 511, 4, 32}));
  EXPECT_TRUE(takes(delta, {512, 512, 4, 32}));
  EXPECT_FALSE(takes(delta, {16, 63, 4, 64}));
  EXPECT_TRUE(takes(delta, {16, 64, 4, 64}));
  EXPECT_FALSE(takes(delta, {63, 511, 1, 64}));
  EXPECT_FALSE(takes(VlaOptions{}, {64, 63, 4, 32}));
  EXPECT_TRUE(takes(VlaOptions{}, {64, 64, 4, 32}));
  EXPECT_FALSE(takes(VlaOptions{}, {65, 511, 4, 32}));
  EXPECT_TRUE(takes(VlaOptions{}, {65, 512, 4, 32}));
  EXPECT_TRUE(takes(VlaOptions{}, {128, 64, 4, 64}));
  EXPECT_FALSE(takes(value_gates, {512, 4096, 4, 64}));
  EXPECT_FALSE(takes(KdaOptions{}, {4, 511, 1, 64}));
  EXPECT_TRUE(takes(KdaOptions{}, {4, 512, 1, 64}));
  EXPECT_TRUE(takes(KdaOptions{}, {64, 64, 1, 64}));
  EXPECT_TRUE(takes(KdaOptions{}, {4, 512, 4, 32}));
  EXPECT_FALSE(takes(KdaOptions{}, {17, 4096, 1, 32}));
  // Of wide values each group is a lane; states of 256 channels have no chunks.
  EXPECT_FALSE(takes(delta, {32, 64, 1, 64}));
  EXPECT_TRUE(takes(delta, {32, 64, 1, 64, 128}));
  EXPECT_FALSE(takes(delta, {64, 4096, 4, 256}));
}

TEST(Registry, OnlyProductionStandsForAnother) {
  const HeadDims dims{64, 4096, 4, 64};
  const MixerConfig vla{.options = VlaOptions{}}, softmax{.options = SoftmaxOptions{}};
  EXPECT_EQ(resolved(Implementation::production, vla, dims, Device::cpu),
            Implementation::recurrent);
  EXPECT_EQ(resolved(Implementation::production, softmax, dims, Device::cuda),
            Implementation::production);
  for (const Implementation implementation : kAll) {
    if (implementation == Implementation::production) continue;
    EXPECT_EQ(resolved(implementation, vla, dims, Device::cuda), implementation);
  }
}

TEST(Registry, LabelsNameTheMethod) {
  const MixerConfig softmax{.options = SoftmaxOptions{}};
  EXPECT_EQ(implementation_label(softmax, Implementation::production), "tiled");
  EXPECT_EQ(implementation_label(softmax, Implementation::unfused), "unfused");
  EXPECT_EQ(implementation_label(softmax, Implementation::cudnn), "cudnn");
  EXPECT_EQ(implementation_label(softmax, Implementation::reference), "reference");
  const MixerConfig linear{.options = LinearOptions{}};
  EXPECT_EQ(implementation_label(linear, Implementation::production), "recurrent");
  EXPECT_EQ(implementation_label(linear, Implementation::chunked), "chunked");
}

}  // namespace
}  // namespace vla_bench
