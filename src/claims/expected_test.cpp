#include "claims/expected.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "core/error.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

/// A complete claim, of which each test replaces one part.
std::string claim_text(const std::string& from = "", const std::string& to = "") {
  std::string text = R"({
    "id": "C1", "title": "small state", "question": "how small?",
    "published": {"value": "109 times", "source": "abstract"},
    "configs": ["config.json"], "command": "vla-bench run config.json",
    "criteria": [{"what": "ratio", "table": "state_norm_summary", "column": "s_norm_mean",
                  "where": {"label": "linear", "t": 1000},
                  "over": {"table": "state_norm_summary", "column": "s_norm_mean",
                           "where": {"label": ["vla", "vla key"]}, "statistic": "max"},
                  "accept": [98, null], "why": "three seeds"}],
    "condition": {"text": "with a tied residual",
                  "criteria": [{"what": "basis", "table": "latency_crossover", "column": "basis",
                                "equals": "measured", "why": "not extrapolated"}]}
  })";
  if (!from.empty()) text.replace(text.find(from), from.size(), to);
  return text;
}

class Expected : public ::testing::Test {
 protected:
  Expected() { std::ofstream(folder_.path() / "config.json") << "{}"; }

  std::filesystem::path file() const { return folder_.path() / "expected.json"; }
  std::vector<Claim> parse(const std::string& text) const { return parse_claims(text, file()); }

  /// The message of the BadInput, which begins with the file.
  std::string complaint(const std::string& text) const {
    try {
      parse(text);
    } catch (const BadInput& error) {
      const std::string message = error.what();
      const std::string prefix = file().string() + ": ";
      EXPECT_TRUE(message.starts_with(prefix)) << message;
      return message.substr(std::min(message.size(), prefix.size()));
    }
    return "accepted";
  }

  testing::TemporaryFolder folder_;
};

TEST_F(Expected, ReadsEveryPart) {
  const std::vector<Claim> claims = parse(claim_text());
  ASSERT_EQ(claims.size(), 1u);
  const Claim& claim = claims[0];
  EXPECT_EQ(claim.id, "C1");
  EXPECT_EQ(claim.published.value, "109 times");
  ASSERT_EQ(claim.criteria.size(), 1u);
  const Criterion& criterion = claim.criteria[0];
  EXPECT_EQ(criterion.of.table, "state_norm_summary");
  ASSERT_EQ(criterion.of.where.columns.size(), 2u);
  EXPECT_EQ(criterion.of.where.columns[1].first, "t");
  EXPECT_EQ(criterion.of.where.columns[1].second, std::vector<Value>{std::int64_t{1000}});
  ASSERT_TRUE(criterion.over.has_value());
  EXPECT_EQ(criterion.over->statistic, Reduction::max);
  EXPECT_EQ(criterion.over->where.columns[0].second.size(), 2u);
  EXPECT_EQ(criterion.accept[0], 98.0);
  EXPECT_FALSE(criterion.accept[1].has_value());
  ASSERT_TRUE(claim.condition.has_value());
  EXPECT_EQ(claim.condition->criteria[0].equals, "measured");
}

TEST_F(Expected, AFileMayHoldSeveralClaims) {
  const std::string two = "[" + claim_text() + "," + claim_text("\"C1\"", "\"C2\"") + "]";
  ASSERT_EQ(parse(two).size(), 2u);
  EXPECT_EQ(parse(two)[1].id, "C2");
  EXPECT_EQ(complaint("[" + claim_text() + "," + claim_text("\"C1\"", "3") + "]"),
            "/1/id: expected a string, got 3");
}

TEST_F(Expected, NamesFileAndKeyOfWhatIsWrong) {
  EXPECT_NE(complaint("{").find("line 1"), std::string::npos) << complaint("{");
  EXPECT_EQ(complaint(claim_text("\"title\"", "\"titel\"")),
            "/titel: unknown key, did you mean \"title\"?");
  EXPECT_EQ(complaint(claim_text("\"small state\"", "\"\"")),
            "/title: expected a text, got nothing");
  EXPECT_EQ(complaint(claim_text("\"source\": \"abstract\"", "\"value \": 1")),
            "/published/value : unknown key, did you mean \"value\"?");
  EXPECT_EQ(complaint(claim_text("[98, null]", "[98, 7]")),
            "/criteria/0/accept: expected [low, high] with low <= high, one of which may be null");
  EXPECT_EQ(complaint(claim_text("[98, null]", "[null, null]")),
            "/criteria/0/accept: expected [low, high] with low <= high, one of which may be null");
  EXPECT_EQ(complaint(claim_text("[98, null]", "[98]")),
            "/criteria/0/accept: expected [low, high] with low <= high, one of which may be null");
  EXPECT_EQ(complaint(claim_text("\"max\"", "\"maximum\"")),
            "/criteria/0/over/statistic: expected one of \"row\", \"min\", \"max\", got "
            "\"maximum\", did you mean \"max\"?");
  EXPECT_EQ(complaint(claim_text("\"equals\": \"measured\",", "")),
            "/condition/criteria/0: expected either \"accept\" or \"equals\"");
  EXPECT_EQ(complaint(claim_text("\"t\": 1000", "\"t\": null")),
            "/criteria/0/where/t: expected a string or a number, got null");
  EXPECT_EQ(complaint(claim_text("\"why\": \"three seeds\"", "\"why\": \"\"")),
            "/criteria/0/why: expected a text, got nothing");
  EXPECT_EQ(complaint(claim_text("[\"config.json\"]", "[\"other.json\"]")),
            "/configs/0: no such file: other.json");
}

// Only `report` computes means.
TEST_F(Expected, TakesNumbersFromSummariesOnly) {
  EXPECT_NE(complaint(claim_text("\"max\"", "\"mean\"")).find("expected one of"),
            std::string::npos);
  EXPECT_EQ(complaint(claim_text("\"table\": \"state_norm_summary\"", "\"table\": \"state_norm\"")),
            "/criteria/0/table: expected a summary, got \"state_norm\", which has one row "
            "per measurement");
}

TEST_F(Expected, SaysWhatACriterionIsAbout) {
  const char* why = "\"why\": \"three seeds\"";
  EXPECT_FALSE(parse(claim_text())[0].criteria[0].about.has_value());
  const std::string divergence = claim_text(why, R"("about": "divergence", "why": "three seeds")");
  EXPECT_EQ(parse(divergence)[0].criteria[0].about, Subject::divergence);
  // Without a loss nothing would ever be undecided.
  std::string memory = claim_text(why, R"("about": "memory", "why": "three seeds")");
  EXPECT_EQ(complaint(memory),
            "/criteria/0/about: expected one of its tables to be accuracy_summary, whose loss "
            "tells whether a model has learned");
  const std::string table = "state_norm_summary";
  memory.replace(memory.find(table), table.size(), "accuracy_summary");
  EXPECT_EQ(parse(memory)[0].criteria[0].about, Subject::memory);
}

TEST_F(Expected, FoldersAreReadInOrderAndIdsAreUnique) {
  for (const char* name : {"02_b", "01_a"}) {
    const std::filesystem::path folder = folder_.path() / name;
    std::filesystem::create_directory(folder);
    std::ofstream(folder / "config.json") << "{}";
    std::ofstream(folder / "expected.json")
        << claim_text("\"C1\"", std::string("\"") + name + "\"");
  }
  const std::vector<Claim> claims = read_claims(folder_.path());
  ASSERT_EQ(claims.size(), 2u);
  EXPECT_EQ(claims[0].id, "01_a");
  EXPECT_EQ(claims[1].folder, folder_.path() / "02_b");

  std::ofstream(folder_.path() / "02_b" / "expected.json") << claim_text("\"C1\"", "\"01_a\"");
  EXPECT_THROW(read_claims(folder_.path()), BadInput);
  EXPECT_THROW(read_claims(folder_.path() / "01_a"), BadInput) << "no folders below";
}

}  // namespace
}  // namespace vla_bench
