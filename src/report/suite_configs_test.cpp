#include "report/suite_configs.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "testing/records.h"

namespace vla_bench {
namespace {

using Json = nlohmann::ordered_json;

CellRecord cell(const std::string& mixer, int n_pairs, int d_h, int seed,
                Device device = Device::cpu) {
  return testing::record_of(
      fmt::format(R"({{"experiment": "recall", "name": "some", "mixers": [{{"mixer": "{}"}}],
                       "model": {{"d_h": {}}}, "task": {{"n_pairs": {}}}, "seeds": [{}]}})",
                  mixer, d_h, n_pairs, seed),
      Table(Recall::table()), device);
}

/// The hashes of all cells that the configs make.
std::set<std::string> hashes_of(const Json& configs) {
  std::set<std::string> hashes;
  for (const Json& config : configs) {
    const Device device = config.at("device") == "cuda" ? Device::cuda : Device::cpu;
    for (const CellConfig& one : expand_cells(parse_config(config.dump(), "x"), device)) {
      hashes.insert(one.hash);
    }
  }
  return hashes;
}

Json configs_of(const std::vector<CellRecord>& cells) { return Json::parse(suite_configs(cells)); }

TEST(SuiteConfigs, SayWhatIsSharedOnceAndSweepTheRest) {
  std::vector<CellRecord> cells;
  for (const char* mixer : {"vla", "linear"}) {
    for (const int n_pairs : {8, 16, 4}) {
      for (const int seed : {43, 42}) cells.push_back(cell(mixer, n_pairs, 32, seed));
    }
  }
  const Json configs = configs_of(cells);
  ASSERT_EQ(configs.size(), 1u) << configs.dump(2);
  EXPECT_EQ(configs[0]["mixers"].size(), 2u);
  EXPECT_EQ(configs[0]["mixers"][0]["mixer"], "linear");
  EXPECT_EQ(configs[0]["mixers"][1]["mixer"], "vla");
  EXPECT_EQ(configs[0]["seeds"], Json::parse("[42, 43]"));
  EXPECT_EQ(configs[0]["sweep"], Json::parse(R"({"task.n_pairs": [4, 8, 16]})"));
}

// Case 14: for any differences and labels of cells, their configs give the same cells.
TEST(SuiteConfigs, MakeTheVerySameCells) {
  const char* const suites[] = {
      R"({"mixers": ["vla", "linear"], "sweep": {"train.lr": [1e-3, 1e-2]}, "seeds": [1, 2]})",
      R"({"mixers": [{"mixer": "vla", "label": "mine"}, "softmax"],
          "sweep": {"model.n_heads,model.d_h": [[4, 16], [1, 32]], "task.n_pairs": [4, 8]}})",
      R"({"experiment": "latency", "mixers": ["vla", {"mixer": "vla", "penalty": "frozen"}],
          "sweep": {"mixer.lambda_0": [0.1, 1], "task.seq_len": [64, 128]}})",
      R"({"experiment": "recall", "sweep": {"recall.keys": ["feature", "gaussian"]}})",
      R"({"mixers": ["deltanet"], "sweep": {"mixers": [["vla"], [{"mixer": "vla", "period": 5}]]},
          "seeds": [3]})"};
  for (const char* suite : suites) {
    std::vector<CellRecord> cells;
    std::set<std::string> expected;
    for (CellConfig& one : expand_cells(parse_config(suite, "x"), Device::cpu)) {
      one.config.mixers.front().label += " renamed";
      expected.insert(one.hash);
      cells.push_back({.config = one.config, .hash = one.hash});
    }
    EXPECT_EQ(hashes_of(configs_of(cells)), expected) << suite;
  }
}

TEST(SuiteConfigs, CellsThatAreNotAllCombinationsGetSeveral) {
  // d_h = 16 for two sizes, d_h = 32 for only one of them.
  const Json configs =
      configs_of({cell("vla", 4, 16, 1), cell("vla", 8, 16, 1), cell("vla", 8, 32, 1)});
  ASSERT_EQ(configs.size(), 2u) << configs.dump(2);
  EXPECT_EQ(configs[0]["sweep"], Json::parse(R"({"task.n_pairs": [4, 8]})"));
  EXPECT_EQ(configs[0]["model"]["d_h"], 16);
  EXPECT_FALSE(configs[1].contains("sweep"));
  EXPECT_EQ(configs[1]["model"]["d_h"], 32);
  EXPECT_EQ(configs[1]["task"]["n_pairs"], 8);
}

TEST(SuiteConfigs, DevicesAreApartAndACellMetTwiceCountsOnce) {
  const std::vector<CellRecord> cells = {cell("vla", 4, 16, 1, Device::cuda), cell("vla", 4, 16, 1),
                                         cell("vla", 4, 16, 1), cell("vla", 8, 16, 1)};
  const Json configs = configs_of(cells);
  ASSERT_EQ(configs.size(), 2u) << configs.dump(2);
  EXPECT_EQ(configs[0]["device"], "cpu");
  EXPECT_EQ(configs[1]["device"], "cuda");
  EXPECT_EQ(configs, configs_of({cells.rbegin(), cells.rend()})) << "their order depends on cells'";
}

TEST(SuiteConfigs, NoCellsGiveNoConfigs) { EXPECT_EQ(suite_configs({}), "[]\n"); }

}  // namespace
}  // namespace vla_bench
