#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "config/curriculum.h"
#include "config/read.h"
#include "testing/cells.h"

namespace vla_bench {
namespace {

using testing::refusal;

constexpr const char* kSegments = R"({"task": {
    "train_segments": [{"n_pairs": 4, "seq_len": 13, "steps": 3},
                       {"n_pairs": 8, "seq_len": 25, "steps": 2},
                       {"n_pairs": 4, "seq_len": 13, "steps": 1}],
    "eval_segments": [{"n_pairs": 8, "seq_len": 25}, {"n_pairs": 16, "seq_len": 100}]}})";

TEST(Segments, AreReadAndWritten) {
  const RunConfig config = parse_config(kSegments, "x.json");
  ASSERT_EQ(config.task.train_segments.size(), 3u);
  EXPECT_EQ(config.task.train_segments[1].seq_len, 25);
  EXPECT_EQ(config.task.eval_segments[1].n_pairs, 16);
  const std::string dumped = dump_config(config);
  EXPECT_EQ(dump_config(parse_config(dumped, "dump")), dumped);
  const std::vector<std::string> set = {"task.train_segments.1.steps=7", "task.eval_segments=[]"};
  const RunConfig changed = parse_config(kSegments, "x.json", set);
  EXPECT_EQ(changed.task.train_segments[1].steps, 7);
  EXPECT_TRUE(changed.task.eval_segments.empty());
}

TEST(Segments, FaultsHaveTheirPointer) {
  EXPECT_REFUSED(R"(x.json: /task/train_segments/0: expected a key "steps")",
                 R"({"task": {"train_segments": [{"n_pairs": 4, "seq_len": 13}]}})");
  EXPECT_REFUSED(R"(/task/eval_segments/0/seqlen: unknown key, did you mean "seq_len"?)",
                 R"({"task": {"eval_segments": [{"n_pairs": 4, "seq_len": 13, "seqlen": 1}]}})");
  EXPECT_REFUSED("/task/eval_segments/0/n_pairs: expected an integer from 1",
                 R"({"task": {"eval_segments": [{"n_pairs": 0, "seq_len": 13}]}})");
  EXPECT_REFUSED("/task/eval_segments/1/seq_len: 5000 tokens exceed model.max_seq_len of 4096",
                 kSegments, {"task.eval_segments.1.seq_len=5000"});
  EXPECT_REFUSED("/task/train_segments/1/seq_len: 8 pairs, the separator and a query need",
                 kSegments, {"task.train_segments.1.seq_len=17"});
  EXPECT_REFUSED("/task/train_segments/0/seq_len: the zoology layout of 4 pairs needs an even",
                 kSegments, {"task.layout=zoology"});
  EXPECT_REFUSED("/task/eval_segments/1/n_pairs: 128 distinct keys", kSegments,
                 {"task.eval_segments.1.n_pairs=128"});
  EXPECT_REFUSED("/task/eval_segments/1: 25 tokens with 8 pairs stand twice", kSegments,
                 {R"(task.eval_segments.1={"n_pairs": 8, "seq_len": 25})"});
  EXPECT_REFUSED("/task/segment_order: at most 1048576 steps", kSegments,
                 {"task.segment_order=shuffled", "task.train_segments.1.steps=2000000"});
  EXPECT_REFUSED("\"eval_segments\" is empty", "{}", {"task.eval_segments.0.n_pairs=1"});
  // n_pairs and seq_len are of no account where both lists are given.
  EXPECT_EQ(refusal(kSegments, {"task.n_pairs=1000"}), "");
  EXPECT_REFUSED("/task/n_pairs", kSegments, {"task.n_pairs=1000", "task.eval_segments=[]"});
}

TEST(Segments, RepeatInOrder) {
  TrainSizes sizes(parse_config(kSegments, "x.json"));
  ASSERT_EQ(sizes.configs().size(), 2u) << "the first and the last are of one size";
  EXPECT_EQ(sequence_length(sizes.configs()[1]), 25);
  EXPECT_EQ(targets_per_row(sizes.configs()[1]), 8);
  EXPECT_EQ(sizes.cycle(), 6);
  EXPECT_EQ(sizes.steps_of(0), 4);
  const std::vector<std::size_t> cycle = {0, 0, 0, 1, 1, 0};
  for (Index step = 0; step < 18; ++step) {
    EXPECT_EQ(sizes.at(step), cycle[static_cast<std::size_t>(step % 6)]) << step;
  }
  TrainSizes one(parse_config(R"({"task": {"n_pairs": 5}})", "x.json"));
  ASSERT_EQ(one.configs().size(), 1u);
  EXPECT_EQ(one.at(1234), 0u);
  EXPECT_EQ(sequence_length(one.configs()[0]), 16);
}

TEST(Segments, ShuffledStepsAreThoseOfTheCycleAndAFunctionOfSeedAndStep) {
  const std::vector<std::string> shuffled = {"task.segment_order=shuffled",
                                             "task.train_segments.0.steps=30"};
  const RunConfig config = parse_config(kSegments, "x.json", shuffled);
  TrainSizes sizes(config), backwards(config);
  std::vector<std::size_t> order;
  for (Index step = 0; step < 66; ++step) order.push_back(sizes.at(step));
  for (Index step = 65; step >= 0; --step) {
    EXPECT_EQ(backwards.at(step), order[static_cast<std::size_t>(step)]) << step;
  }
  const auto first_end = order.begin() + 33;
  EXPECT_EQ(std::count(order.begin(), first_end, 1u), 2);
  EXPECT_EQ(std::count(first_end, order.end(), 1u), 2);
  EXPECT_FALSE(std::equal(order.begin(), first_end, first_end)) << "each cycle anew";
  RunConfig other = config;
  other.seeds = {43};
  TrainSizes of_other(other);
  std::vector<std::size_t> other_order;
  for (Index step = 0; step < 66; ++step) other_order.push_back(of_other.at(step));
  EXPECT_NE(other_order, order);
}

TEST(Segments, AreSlicesOfTheEvaluation) {
  const std::vector<Slice> slices = eval_slices(parse_config(kSegments, "x.json"));
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(slices[1].name, "100/16");
  EXPECT_EQ(sequence_length(slices[1].config), 100);
  EXPECT_FALSE(has_slices(slices[1].config));
  const std::vector<Slice> one = eval_slices(parse_config("{}", "x.json"));
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].name, "");
  // The copying task does not read them.
  EXPECT_FALSE(
      has_slices(parse_config(kSegments, "x.json", std::vector<std::string>{"experiment=copy"})));
}

}  // namespace
}  // namespace vla_bench
