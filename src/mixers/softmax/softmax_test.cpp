#include <gtest/gtest.h>

#include "testing/mixer_cases.h"

namespace vla_bench::testing {
namespace {

const MixerConfig kSoftmax{.options = SoftmaxOptions{}};

TEST(Softmax, MeetsTheContract) { expect_contract(kSoftmax); }

// Several tiles of keys in both directions, and scores whose maximum moves from tile to tile by
// more than the exponent range of float (scale 30: scores up to thousands).
TEST(Softmax, LargeScoresAcrossTiles) {
  const HeadDims dims{.batch = 1, .tokens = 200, .heads = 2, .d_h = 8};
  const CoreTensors tensors = random_tensors(kSoftmax, dims, 31, 30.0);
  expect_matches_reference<double>(kSoftmax, tensors, 1e-11);
  // A score of size 3000 carries an error of 2^-24 * 3000 = 2e-4 into its weight.
  expect_matches_reference<float>(kSoftmax, tensors, 5e-3);
}

// The mean of equal scores: o_t is the running mean of the values.
TEST(Softmax, EqualScoresGiveTheMean) {
  const HeadDims dims{.batch = 1, .tokens = 100, .heads = 1, .d_h = 4};
  CoreTensors tensors = random_tensors(kSoftmax, dims, 32);
  std::fill(tensors.q.begin(), tensors.q.end(), 0.0);
  const CoreRun run = run_core<double>(*production_core<double>(kSoftmax, 4), tensors, 1, false);
  double sum = 0.0;
  for (std::size_t t = 0; t < 100; ++t) {
    sum += tensors.v[4 * t];
    EXPECT_NEAR(run.o[4 * t], sum / static_cast<double>(t + 1), 1e-13);
  }
}

// Two values per token and head, for its row of scores: no T x T matrix is kept.
TEST(Softmax, SavesTwoValuesPerToken) {
  const auto core = production_core<float>(kSoftmax, 32);
  EXPECT_EQ(core->saved_bytes({.batch = 2, .tokens = 1000, .heads = 3, .d_h = 32}),
            2 * 2 * 1000 * 3 * 4);
  EXPECT_EQ(core->state_bytes({.batch = 2, .tokens = 1000, .heads = 3, .d_h = 32}),
            2 * 2 * 1000 * 3 * 32 * 4);
}

// With unit keys and a query along the first, that key's weight is e^sqrt(d) against 1 for an
// orthogonal one: keys and query at length sqrt(d), scores over sqrt(d).
TEST(Softmax, MemoryReadsAtLengthRootD) {
  const auto memory = production_core<double>(kSoftmax, 4)->memory();
  const double key1[] = {1, 0, 0, 0}, key2[] = {0, 1, 0, 0};
  const double value1[] = {1, 0, 0, 0}, value2[] = {0, 1, 0, 0};
  double out[4];
  memory->read(key1, out);
  EXPECT_EQ(out[0], 0.0) << "an empty cache reads as zero";
  memory->write(key1, value1);
  memory->write(key2, value2);
  memory->read(key1, out);
  EXPECT_NEAR(out[0], std::exp(2.0) / (std::exp(2.0) + 1.0), 1e-15);
  EXPECT_NEAR(out[1], 1.0 / (std::exp(2.0) + 1.0), 1e-15);
  EXPECT_NEAR(memory->state_norm(), std::sqrt(2 * 4 + 2.0), 1e-14);
  EXPECT_FALSE(memory->jacobian().has_value());
}

}  // namespace
}  // namespace vla_bench::testing
