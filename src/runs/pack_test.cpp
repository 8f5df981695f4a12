#include "runs/pack.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "runs/cell_folder.h"
#include "testing/records.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> lines_of_seeds(int seeds) {
  std::vector<std::string> lines;
  for (int seed = 1; seed <= seeds; ++seed) {
    lines.push_back(seal(testing::record_of(
        R"({"experiment": "recall", "mixers": ["vla"], "seeds": [)" + std::to_string(seed) + "]}",
        Table(Recall::table()))));
  }
  return lines;
}

class Packs : public ::testing::Test {
 protected:
  testing::TemporaryFolder folder_;
  const fs::path path_ = folder_.path() / "some.jsonl";
};

TEST_F(Packs, LinesComeBackAsTheyWerePacked) {
  const std::vector<std::string> lines = lines_of_seeds(3);
  write_pack(path_, {.name = "some \"run\"", .sweep = R"({"experiment":"recall"})"}, lines);
  PackReader reader(path_);
  EXPECT_EQ(reader.note().name, "some \"run\"");
  EXPECT_EQ(reader.note().sweep, R"({"experiment":"recall"})");
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto line = reader.next();
    ASSERT_TRUE(line);
    EXPECT_EQ(line->text, lines[i]);
    EXPECT_EQ(line->number, i + 2);
    EXPECT_EQ(read_pack_line(path_, line->offset), lines[i]);
  }
  EXPECT_FALSE(reader.next());
}

TEST_F(Packs, LongLinesAreReadWhole) {
  const std::string line = seal_line(R"({"text":")" + std::string(200'000, 'x') + "\"}");
  write_pack(path_, {.name = "long"}, {line, line});
  PackReader reader(path_);
  EXPECT_EQ(reader.next()->text, line);
  EXPECT_EQ(reader.next()->text, line);
  EXPECT_FALSE(reader.next());
}

TEST_F(Packs, WhatIsNoPackIsRefused) {
  EXPECT_THROW(PackReader(folder_.path() / "missing.jsonl"), BadInput);
  for (const std::string& content :
       {std::string(), std::string("{}\n"), lines_of_seeds(1)[0] + "\n",
        seal_line(R"({"pack":2,"name":"x","sweep":null})"), std::string("\n\n")}) {
    write_file_atomically(path_, content);
    EXPECT_THROW(PackReader{path_}, BadInput) << content;
  }
}

TEST_F(Packs, DepthOfTheNoteIsBounded) {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  const std::string line = seal_line(R"({"pack":1,"name":"x","sweep":{"a":)" + deep + "}}") + "\n";
  EXPECT_THROW(PackReader(std::make_unique<std::istringstream>(line), "deep.jsonl"), BadInput);
}

TEST_F(Packs, TheIndexTellsHowCellsEndedAndNamesDamage) {
  std::vector<std::string> lines = lines_of_seeds(2);
  lines[1][300] = lines[1][300] == 'x' ? 'y' : 'x';
  write_pack(path_, {.name = "some"}, lines);
  write_file_atomically(folder_.path() / "other.jsonl", "no pack");
  const PackIndex index(folder_.path());
  ASSERT_EQ(index.cells("some").size(), 1u);
  const std::string hash = index.cells("some").begin()->first;
  EXPECT_EQ(index.find("some", hash)->outcome.status, "ok");
  EXPECT_EQ(index.find("other", hash), nullptr);
  ASSERT_EQ(index.problems().size(), 2u);
  EXPECT_NE(index.problems()[0].find("other.jsonl"), std::string::npos);
  EXPECT_NE(index.problems()[1].find("some.jsonl:3"), std::string::npos) << index.problems()[1];
  EXPECT_TRUE(PackIndex(folder_.path() / "nowhere").problems().empty());
}

}  // namespace
}  // namespace vla_bench
