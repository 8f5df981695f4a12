#include "core/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>
#include <vector>

namespace vla_bench {
namespace {

std::vector<std::uint32_t> draws(std::uint64_t seed, RngStream stream, std::uint32_t index,
                                 std::uint32_t substream, int count) {
  Rng rng(seed, stream, index, substream);
  std::vector<std::uint32_t> values;
  for (int i = 0; i < count; ++i) values.push_back(rng.next());
  return values;
}

// Random123's published known-answer vector of philox4x32-10 for counter 0 and key 0.
TEST(Rng, MatchesTheKnownAnswerOfPhilox) {
  const std::vector<std::uint32_t> expected = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  EXPECT_EQ(draws(0, static_cast<RngStream>(0), 0, 0, 4), expected);
}

TEST(Rng, EveryCoordinateChangesTheSequence) {
  std::set<std::vector<std::uint32_t>> sequences;
  sequences.insert(draws(42, RngStream::recall, 5, 6, 8));
  sequences.insert(draws(43, RngStream::recall, 5, 6, 8));
  sequences.insert(draws(42 + (1ull << 32), RngStream::recall, 5, 6, 8));
  sequences.insert(draws(42, RngStream::gaussian, 5, 6, 8));
  sequences.insert(draws(42, RngStream::recall, 6, 6, 8));
  sequences.insert(draws(42, RngStream::recall, 5, 7, 8));
  EXPECT_EQ(sequences.size(), 6u);
  EXPECT_EQ(draws(42, RngStream::recall, 5, 6, 8), draws(42, RngStream::recall, 5, 6, 8));
}

TEST(Rng, BlocksAreTheSequence) {
  Rng rng(42, RngStream::recall, 5, 6);
  rng.next();  // blocks do not depend on where the sequence stands
  std::vector<std::uint32_t> blocks(12);
  for (std::uint32_t block = 0; block < 3; ++block) rng.draw_block(block, &blocks[4 * block]);
  EXPECT_EQ(blocks, draws(42, RngStream::recall, 5, 6, 12));
}

TEST(Rng, UniformStaysInsideTheOpenInterval) {
  Rng rng(1, RngStream::benchmark, 0, 0);
  constexpr int kDraws = 100'000;
  double sum = 0.0;
  for (int i = 0; i < kDraws; ++i) {
    const double value = rng.uniform();
    ASSERT_GT(value, 0.0);
    ASSERT_LT(value, 1.0);
    sum += value;
  }
  // Standard error of the mean: sqrt(1 / 12 / 1e5) = 9.1e-4; five of them.
  EXPECT_NEAR(sum / kDraws, 0.5, 4.6e-3);
}

TEST(Rng, BelowIsUniform) {
  constexpr int kValues = 7;
  constexpr int kDraws = 70'000;
  std::array<int, kValues> counts = {};
  Rng rng(2, RngStream::benchmark, 0, 0);
  for (int i = 0; i < kDraws; ++i) {
    const std::uint32_t value = rng.below(kValues);
    ASSERT_LT(value, static_cast<std::uint32_t>(kValues));
    ++counts[value];
  }
  // Binomial: standard deviation sqrt(7e4 * 1/7 * 6/7) = 93; five of them.
  for (const int count : counts) EXPECT_NEAR(count, kDraws / kValues, 465);
  EXPECT_EQ(rng.below(1), 0u);
}

TEST(Rng, NormalHasItsMomentsAndUncorrelatedPairs) {
  Rng rng(3, RngStream::benchmark, 0, 0);
  constexpr int kDraws = 100'000;
  std::array<double, 5> moments = {};
  double previous = 0.0;
  double lagged = 0.0;
  for (int i = 0; i < kDraws; ++i) {
    const double value = rng.normal();
    double power = 1.0;
    for (double& moment : moments) {
      moment += power / kDraws;
      power *= value;
    }
    lagged += value * previous / kDraws;
    previous = value;
  }
  // Variances of x, x^2, x^3, x^4 and x x' are 1, 2, 15, 96 and 1; over 1e5 draws, five standard
  // errors each.
  EXPECT_NEAR(moments[1], 0.0, 0.016);
  EXPECT_NEAR(moments[2], 1.0, 0.023);
  EXPECT_NEAR(moments[3], 0.0, 0.062);
  EXPECT_NEAR(moments[4], 3.0, 0.155);
  EXPECT_NEAR(lagged, 0.0, 0.016);
}

}  // namespace
}  // namespace vla_bench
