#include "cli/plan.h"

#include <gtest/gtest.h>

#include <set>

#include "core/error.h"

namespace vla_bench::cli {
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

TEST(PlanCells, ShardsPartTheCells) {
  const RunConfig config = parse_config(kSweep, "test");
  const auto whole = plan_cells(config, Device::cpu, "root", {});
  ASSERT_EQ(whole.size(), 12u);  // 3 sweep points x 2 mixers x 2 seeds
  std::set<std::string> expected, found;
  for (const PlannedCell& planned : whole) expected.insert(planned.cell.hash);
  std::size_t count = 0;
  for (Index i = 0; i < 5; ++i) {
    const auto part = plan_cells(config, Device::cpu, "root", {.index = i, .count = 5});
    for (std::size_t j = 0; j < part.size(); ++j) {
      EXPECT_EQ(part[j].cell.hash, whole[static_cast<std::size_t>(i) + 5 * j].cell.hash);
      found.insert(part[j].cell.hash);
    }
    count += part.size();
  }
  EXPECT_EQ(count, whole.size());
  EXPECT_EQ(found, expected);
  EXPECT_EQ(expected.size(), whole.size());
}

TEST(PlanCells, TheCpuRefusesWhatItDoesNotComputeIn) {
  const RunConfig config = parse_config(kSweep, "test", std::vector<std::string>{"precision=tf32"});
  EXPECT_EQ(plan_cells(config, Device::cuda, "root", {}).size(), 12u);
  try {
    plan_cells(config, Device::cpu, "root", {});
    FAIL() << "the cpu took tf32";
  } catch (const BadInput& error) {
    EXPECT_STREQ(error.what(), "/precision: the cpu computes in float32 alone, got tf32");
  }
}

TEST(PlanCells, FoldersAreRootNameHash) {
  const auto plan = plan_cells(parse_config(kSweep, "test"), Device::cpu, "root", {});
  const PlannedCell& first = plan.front();
  EXPECT_EQ(first.directory.folder, std::filesystem::path("root") / "plan" / first.cell.hash);
  EXPECT_EQ(first.schema->name, "recall");
  EXPECT_FALSE(first.finished());
  EXPECT_EQ(plan_table(plan).rows.size(), plan.size());
}

}  // namespace
}  // namespace vla_bench::cli
