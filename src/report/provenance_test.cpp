#include "report/provenance.h"

#include <gtest/gtest.h>

#include <map>

#include "core/device.h"

namespace vla_bench {
namespace {

TEST(Provenance, HoldsEveryFactOnce) {
  const auto facts = provenance(3);
  const std::map<std::string, std::string> map(facts.begin(), facts.end());
  EXPECT_EQ(map.size(), facts.size()) << "a key occurs twice";
  for (const char* key : {"version", "git_hash",      "git_dirty",      "compiler",  "build_type",
                          "flags",   "simd_compiled", "simd_processor", "processor", "cores",
                          "threads", "cuda",          "eigen",          "fmt",       "spdlog",
                          "cli11",   "nlohmann_json", "random123",      "xxhash",    "openmp",
                          "highway"}) {
    ASSERT_TRUE(map.contains(key)) << key;
    EXPECT_FALSE(map.at(key).empty()) << key;
  }
  EXPECT_EQ(map.at("threads"), "3");
  EXPECT_FALSE(map.contains("jobs")) << "nothing has been run";
}

TEST(Provenance, NamesJobsAndCudaLibrariesWhereThereAreAny) {
  const auto facts = provenance(3, 4);
  const std::map<std::string, std::string> map(facts.begin(), facts.end());
  EXPECT_EQ(map.at("jobs"), "4");
  for (const auto& [name, version] : cuda_library_versions()) EXPECT_EQ(map.at(name), version);
  EXPECT_EQ(map.contains("cuda_toolkit"), cuda_status().built);
}

TEST(Provenance, TheGitStateIsKnownOrSaysSo) {
  const auto facts = provenance(1);
  const std::map<std::string, std::string> map(facts.begin(), facts.end());
  const std::string& hash = map.at("git_hash");
  const std::string& dirty = map.at("git_dirty");
  if (hash == "unknown") {
    EXPECT_EQ(dirty, "unknown");
  } else {
    EXPECT_EQ(hash.find_first_not_of("0123456789abcdef"), std::string::npos) << hash;
    EXPECT_GE(hash.size(), 40u);
    EXPECT_TRUE(dirty == "true" || dirty == "false") << dirty;
  }
}

}  // namespace
}  // namespace vla_bench
