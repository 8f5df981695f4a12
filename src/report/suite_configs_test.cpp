#include "report/suite_configs.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace vla_bench {
namespace {

using Json = nlohmann::ordered_json;

FinishedCell cell(const std::string& mixer, int n_pairs, int d_h, int seed,
                  const std::string& device = "cpu") {
  FinishedCell finished;
  finished.directory.folder = "runs/some/cell";
  finished.config_json = fmt::format(
      R"({{"experiment": "recall", "name": "some", "mixers": [{{"mixer": "{}"}}],
           "model": {{"d_h": {}}}, "task": {{"n_pairs": {}, "seq_len": null}},
           "latency": {{"passes": ["forward", "backward"]}},
           "seeds": [{}], "sweep": {{}}, "device": "{}"}})",
      mixer, d_h, n_pairs, seed, device);
  return finished;
}

Json configs_of(const std::vector<FinishedCell>& cells) {
  return Json::parse(suite_configs(cells));
}

TEST(SuiteConfigs, SayWhatIsSharedOnceAndSweepTheRest) {
  std::vector<FinishedCell> cells;
  for (const char* mixer : {"vla", "linear"}) {
    for (const int n_pairs : {8, 16, 4}) {
      for (const int seed : {43, 42}) cells.push_back(cell(mixer, n_pairs, 32, seed));
    }
  }
  const Json configs = configs_of(cells);
  ASSERT_EQ(configs.size(), 1u) << configs.dump(2);
  EXPECT_EQ(configs[0], Json::parse(R"({"experiment": "recall", "name": "some",
    "mixers": [{"mixer": "linear"}, {"mixer": "vla"}],
    "model": {"d_h": 32}, "task": {"n_pairs": 4, "seq_len": null},
    "latency": {"passes": ["forward", "backward"]},
    "seeds": [42, 43], "device": "cpu", "sweep": {"task.n_pairs": [4, 8, 16]}})"));
}

TEST(SuiteConfigs, CellsThatAreNotAllCombinationsGetSeveral) {
  // d_h = 16 for two sizes, d_h = 32 for one of them alone.
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
  const std::vector<FinishedCell> cells = {cell("vla", 4, 16, 1, "cuda"), cell("vla", 4, 16, 1),
                                           cell("vla", 4, 16, 1), cell("vla", 8, 16, 1)};
  const Json configs = configs_of(cells);
  ASSERT_EQ(configs.size(), 2u) << configs.dump(2);
  EXPECT_EQ(configs[0]["device"], "cpu");
  EXPECT_EQ(configs[1]["device"], "cuda");
  EXPECT_EQ(configs, configs_of({cells.rbegin(), cells.rend()})) << "their order depends on cells'";
}

TEST(SuiteConfigs, ConfigsOfOtherVersionsStandApart) {
  std::vector<FinishedCell> cells = {cell("vla", 4, 16, 1), cell("vla", 8, 16, 1)};
  Json older = Json::parse(cells[1].config_json);
  older.erase("latency");
  cells[1].config_json = older.dump();
  EXPECT_EQ(configs_of(cells).size(), 2u);
  EXPECT_EQ(suite_configs({}), "[]\n");
}

TEST(SuiteConfigs, NameTheFolderOfAConfigThatIsNone) {
  std::vector<FinishedCell> cells = {cell("vla", 4, 16, 1)};
  cells[0].config_json = "[1]";
  try {
    suite_configs(cells);
    FAIL() << "a list passed for a config";
  } catch (const BadInput& error) {
    EXPECT_NE(std::string(error.what()).find("runs/some/cell/config.json"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace vla_bench
