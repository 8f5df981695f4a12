#include "mixers/work.h"

#include <gtest/gtest.h>

namespace vla_bench {
namespace {

constexpr HeadDims kDims{.batch = 2, .tokens = 5, .heads = 3, .d_h = 4};
constexpr Index kLanes = 6;
constexpr auto kForward = LatencyPass::forward;
constexpr auto kBackward = LatencyPass::backward;

// Sums over the tokens by hand: 2 FLOP times multiply-adds per token and head.
TEST(Work, CountsTheRecurrences) {
  const struct {
    MixerConfig mixer;
    Index forward, backward;  // multiply-adds in units of d^2
  } cases[] = {
      {{.options = LinearOptions{}}, 2, 6},
      {{.options = DeltaNetOptions{}}, 3, 9},
      {{.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}}, 3, 9},
      {{.options = VlaOptions{}}, 6, 16},
      {{.options = VlaOptions{.penalty = Penalty::key}}, 6, 16},
      {{.options = VlaOptions{.penalty = Penalty::frozen}}, 3, 7},
  };
  for (const auto& [mixer, forward, backward] : cases) {
    SCOPED_TRACE(mixer.name());
    const Index unit = 2 * kLanes * 5 * 16;
    EXPECT_EQ(core_work(mixer, kDims, kForward, 4).flop, unit * forward);
    EXPECT_EQ(core_work(mixer, kDims, kBackward, 4).flop, unit * backward);
  }
}

TEST(Work, CountsValuesWiderThanKeys) {
  HeadDims dims = kDims;
  dims.d_v = 12;
  const MixerConfig linear{.options = LinearOptions{}};
  EXPECT_EQ(core_work(linear, dims, kForward, 4).flop, 2 * kLanes * 5 * 2 * 4 * 12);
  EXPECT_EQ(core_work(linear, dims, kBackward, 4).flop, 2 * kLanes * 5 * 6 * 4 * 12);
  const MixerConfig vla{.options = VlaOptions{}};
  EXPECT_EQ(core_work(vla, dims, kForward, 4).flop, 2 * kLanes * 5 * (3 * 4 * 12 + 3 * 16));
  const MixerConfig mesa{.options = MesaOptions{}};  // d^3 / 6 = 10
  EXPECT_EQ(core_work(mesa, dims, kBackward, 4).flop, 2 * kLanes * 5 * (6 * 4 * 12 + 4 * 16 + 10));
  // q, k of 4, v, o of 12; backward: q, k, v, o, d_o, dq, dk, dv.
  EXPECT_EQ(core_work(linear, dims, kForward, 4).bytes, 30 * (2 * 4 + 2 * 12) * 4);
  EXPECT_EQ(core_work(linear, dims, kBackward, 4).bytes, 30 * (4 * 4 + 4 * 12) * 4);
}

TEST(Work, CountsTheTriangleOfSoftmax) {
  const MixerConfig softmax{.options = SoftmaxOptions{}};
  // Positions 1 to 5: 15 pairs of query and key, q . k and p v each d multiply-adds.
  EXPECT_EQ(core_work(softmax, kDims, kForward, 4).flop, 2 * kLanes * 15 * 2 * 4);
  EXPECT_EQ(core_work(softmax, kDims, kBackward, 4).flop, 2 * kLanes * 15 * 5 * 4);
  // Beyond 2^31.
  const HeadDims large{.batch = 4, .tokens = 1 << 17, .heads = 1, .d_h = 64};
  EXPECT_EQ(core_work(softmax, large, kForward, 4).flop,
            Index{16} * 64 * ((Index{1} << 33) + (Index{1} << 16)));
}

TEST(Work, CountsEachNumberOnce) {
  const Index tokens_and_heads = 2 * 5 * 3;
  // q, k, v, o; backward: q, k, v, o, d_o, dq, dk, dv.
  const MixerConfig linear{.options = LinearOptions{}};
  EXPECT_EQ(core_work(linear, kDims, kForward, 4).bytes, tokens_and_heads * 4 * 4 * 4);
  EXPECT_EQ(core_work(linear, kDims, kBackward, 4).bytes, tokens_and_heads * 8 * 4 * 4);
  EXPECT_EQ(core_work(linear, kDims, kBackward, 2).bytes, tokens_and_heads * 8 * 4 * 2);
  // With u and du.
  const MixerConfig vla{.options = VlaOptions{}};
  EXPECT_EQ(core_work(vla, kDims, kForward, 4).bytes, tokens_and_heads * 5 * 4 * 4);
  EXPECT_EQ(core_work(vla, kDims, kBackward, 4).bytes, tokens_and_heads * 10 * 4 * 4);
  // With one beta a head.
  const MixerConfig standard{.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}};
  EXPECT_EQ(core_work(standard, kDims, kForward, 8).bytes, tokens_and_heads * (4 * 4 + 1) * 8);
}

}  // namespace
}  // namespace vla_bench
