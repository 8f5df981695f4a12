#include "runs/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <vector>

#include "core/error.h"
#include "testing/source_dir.h"

namespace vla_bench {
namespace {

const char* const kSweep = R"({"experiment": "recall", "name": "plan", "mixers": ["linear", "vla"],
                              "sweep": {"task.n_pairs": [2, 4, 8]}, "seeds": [1, 2]})";

TEST(ParseShard, ReadsIndexAndCount) {
  const Shard shard = parse_shard("2/5");
  EXPECT_EQ(shard.index, 2);
  EXPECT_EQ(shard.count, 5);
}

TEST(ParseShard, RefusesWhatIsNoShard) {
  for (const char* text : {"", "/", "1", "1/", "/2", "2/2", "-1/2", "0/0", "0/-1", "1/2/3", "a/b",
                           "0x0/1", " 0/1", "0/1 ", "0/99999999999999999999"}) {
    EXPECT_THROW(parse_shard(text), BadInput) << text;
  }
}

TEST(SortLongestFirst, KeepsTheOrderOfEquals) {
  std::vector<std::size_t> cells = {0, 2, 3, 4};  // cell 1 is finished
  sort_longest_first({3, 9, 4, 3, 4}, cells);
  EXPECT_EQ(cells, (std::vector<std::size_t>{2, 4, 0, 3}));
}

TEST(Deal, LongestFirstToTheShardWithLeast) {
  // 9 | 7 | 6, then 5 to the third, 4 to the second, 3 to the first.
  EXPECT_EQ(deal({3, 9, 4, 7, 5, 6}, 3), (std::vector<Index>{0, 0, 1, 1, 2, 2}));
  // Among equals the first in the list goes to the lowest shard.
  EXPECT_EQ(deal({2, 2, 2, 2, 2}, 2), (std::vector<Index>{0, 1, 0, 1, 0}));
  EXPECT_EQ(deal({1, 2}, 1'000'000'000), (std::vector<Index>{1, 0}));
  EXPECT_TRUE(deal({}, 3).empty());
  // The loads do not overflow.
  constexpr Index kMost = std::numeric_limits<Index>::max();
  EXPECT_EQ(deal({kMost, kMost, kMost, kMost}, 2), (std::vector<Index>{0, 1, 0, 1}));
}

TEST(PlanCells, ShardsPartTheCells) {
  const RunConfig config = parse_config(kSweep, "test");
  const auto whole = plan_cells(config, Device::cpu, "root");
  ASSERT_EQ(whole.size(), 12u);  // 3 sweep points x 2 mixers x 2 seeds
  std::set<std::string> expected, found;
  for (const PlannedCell& planned : whole) expected.insert(planned.cell.hash);
  std::size_t count = 0;
  for (Index i = 0; i < 5; ++i) {
    const auto part = only_shard(plan_cells(config, Device::cpu, "root", 5), i);
    for (const PlannedCell& planned : part) found.insert(planned.cell.hash);
    count += part.size();
  }
  EXPECT_EQ(count, whole.size());
  EXPECT_EQ(found, expected);
  EXPECT_EQ(expected.size(), whole.size());
}

// The paper's capacity sweep, and the larger one.
TEST(PlanCells, NoShardIsFarAboveTheMean) {
  for (const char* name : {"mqar.json", "sweep.json"}) {
    const RunConfig config = read_config(testing::source_dir() / "configs" / name, {});
    for (Index shards = 2; shards <= 8; ++shards) {
      std::vector<double> loads(static_cast<std::size_t>(shards), 0.0);
      double sum = 0.0;
      for (const PlannedCell& planned : plan_cells(config, Device::cpu, "root", shards)) {
        loads[static_cast<std::size_t>(planned.shard)] += static_cast<double>(planned.flop);
        sum += static_cast<double>(planned.flop);
      }
      const double worst = *std::max_element(loads.begin(), loads.end());
      EXPECT_LE(worst * static_cast<double>(shards) / sum, 1.15) << name << ": " << shards;
    }
  }
}

TEST(PlanCells, TheCpuRefusesWhatItDoesNotComputeIn) {
  const RunConfig config = parse_config(kSweep, "test", std::vector<std::string>{"precision=tf32"});
  EXPECT_EQ(plan_cells(config, Device::cuda, "root").size(), 12u);
  try {
    plan_cells(config, Device::cpu, "root");
    FAIL() << "the cpu took tf32";
  } catch (const BadInput& error) {
    EXPECT_STREQ(error.what(), "/precision: the cpu computes in float32 only, got tf32");
  }
}

TEST(PlanCells, FoldersAreRootNameHash) {
  const auto plan = plan_cells(parse_config(kSweep, "test"), Device::cpu, "root");
  const PlannedCell& first = plan.front();
  EXPECT_EQ(first.folder.path, std::filesystem::path("root") / "plan" / first.cell.hash);
}

}  // namespace
}  // namespace vla_bench
