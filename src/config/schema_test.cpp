#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "config/read.h"
#include "core/files.h"
#include "testing/source_dir.h"

namespace vla_bench {
namespace {

const std::filesystem::path kConfigs = testing::source_dir() / "configs";

TEST(Schema, CommittedFileIsCurrent) {
  EXPECT_EQ(read_file(kConfigs / "schema.json"), config_schema())
      << "after a change of config.h: vla-bench schema > configs/schema.json";
}

/// Checks that the schema has every key of a dump, with a description.
void expect_described(const nlohmann::json& value, const nlohmann::json& schema,
                      const std::string& path) {
  ASSERT_EQ(schema.value("type", ""), "object") << path;
  EXPECT_EQ(schema.value("additionalProperties", true), false) << path;
  for (const auto& [key, member] : value.items()) {
    ASSERT_TRUE(schema["properties"].contains(key)) << path << "/" << key;
    const nlohmann::json& property = schema["properties"][key];
    // A key that several mixers have is described for each.
    for (const auto& one : property.value("anyOf", nlohmann::json::array({property}))) {
      EXPECT_FALSE(one.value("description", "").empty()) << path << "/" << key;
      if (key == "sweep") continue;
      if (member.is_object()) {
        expect_described(member, one, path + "/" + key);
      } else {
        EXPECT_TRUE(one.contains("default")) << path << "/" << key;
      }
    }
  }
}

TEST(Schema, DescribesEveryKeyWithItsDefault) {
  const auto schema = nlohmann::json::parse(config_schema());
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  const RunConfig config;
  const auto defaults = nlohmann::json::parse(dump_config(config));
  expect_described(defaults, schema, "");
  const auto& model = schema["properties"]["model"]["properties"];
  EXPECT_EQ(model["d_h"]["minimum"], 1);
  EXPECT_EQ(model["d_h"]["maximum"], 1024);
  EXPECT_EQ(model["d_h"]["default"], 32);
  const auto& mixer = schema["properties"]["mixers"]["items"]["oneOf"];
  EXPECT_EQ(mixer[0]["enum"][3], "vla");
  EXPECT_EQ(mixer[1]["properties"]["u_scale"]["type"], nlohmann::json({"number", "null"}));
  for (const auto& one : defaults["mixers"]) expect_described(one, mixer[1], "/mixers");
}

TEST(Configs, EveryBaseConfigIsValidAndNamedAfterItsFile) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs)) {
    if (entry.path().extension() != ".json" || entry.path().stem() == "schema") continue;
    SCOPED_TRACE(entry.path().filename());
    const RunConfig config = read_config(entry.path(), {});
    EXPECT_EQ(config.name, entry.path().stem());
    EXPECT_FALSE(expand_cells(config, Device::cpu).empty());
    ++count;
  }
  EXPECT_GE(count, 9);
}

TEST(Configs, EveryExperimentsConfigIsValid) {
  int count = 0;
  const std::filesystem::path experiments = testing::source_dir() / "experiments";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(experiments)) {
    if (entry.path().extension() != ".json" || entry.path().stem() == "expected") continue;
    SCOPED_TRACE(entry.path());
    EXPECT_FALSE(expand_cells(read_config(entry.path(), {}), Device::cpu).empty());
    ++count;
  }
  EXPECT_GE(count, 15);
}

TEST(Configs, DefaultsAreThePublishedProtocol) {
  const RunConfig config = read_config(kConfigs / "mqar.json", {});
  EXPECT_EQ(expand_cells(config, Device::cpu).size(), 24u);
  EXPECT_EQ(config.train.steps, 3000);
  EXPECT_EQ(config.train.warmup, 300);
  EXPECT_EQ(config.train.batch, 64);
  EXPECT_EQ(config.train.lr, 3e-4);
  EXPECT_EQ(config.eval.batches, 20);
  EXPECT_EQ(config.eval.batch, 32);
}

}  // namespace
}  // namespace vla_bench
