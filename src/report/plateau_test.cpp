#include "report/plateau.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "config/read.h"
#include "testing/records.h"

namespace vla_bench {
namespace {

using testing::record_of;
using Points = std::vector<std::pair<Index, double>>;  // step, loss

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Table curve_of(const Points& points) {
  Table history(history_schema());
  for (const auto& [step, loss] : points) history.add({step, loss, 0.5, 1e-3, 1.0});
  return history;
}
/// At every step from 1 to `steps` the same loss.
Table flat(Index steps, double loss) {
  Points points;
  for (Index step = 1; step <= steps; ++step) points.emplace_back(step, loss);
  return curve_of(points);
}

std::optional<Plateau> plateau_of(const char* json, const Table& history) {
  return vla_bench::plateau_of(record_of(json).config, history);
}

// ln 8 = 2.08, so a loss below 1.58 is off the plateau.
constexpr const char* kEight = R"({"task": {"n_pairs": 8}})";

std::optional<Index> left(const Points& points) {
  const std::optional<Plateau> plateau = plateau_of(kEight, curve_of(points));
  EXPECT_TRUE(plateau.has_value());
  return plateau.value_or(Plateau()).left;
}

TEST(Plateau, IsLeftAtTheFirstStepThatIsBelowItForGood) {
  EXPECT_EQ(left({{50, 4.8}, {100, 2.1}, {150, 1.5}, {200, 0.2}}), 150);
  EXPECT_EQ(left({{50, 0.1}, {100, 0.1}}), 50);
}

TEST(Plateau, IsNotLeftByAnyLossAboveIt) {
  EXPECT_EQ(left({{50, 4.8}, {100, 2.1}, {150, 1.6}}), std::nullopt);
}

TEST(Plateau, IsLeftAgainAfterARelapse) {
  EXPECT_EQ(left({{50, 0.4}, {100, 0.3}, {150, 2.1}, {200, 0.3}, {250, 0.1}}), 200);
  EXPECT_EQ(left({{50, 0.4}, {100, 0.3}, {150, 2.1}}), std::nullopt) << "the last row decides";
  EXPECT_EQ(left({{50, 0.4}, {100, kNan}, {150, 0.3}}), 150) << "no number is not below it";
}

TEST(Plateau, OneLoggedRowDecides) {
  EXPECT_EQ(left({{3000, 0.2}}), 3000);
  EXPECT_EQ(left({{3000, 2.0}}), std::nullopt);
}

TEST(Plateau, ItsEndIsHalfANatBelowTheLogarithmOfThePairs) {
  EXPECT_DOUBLE_EQ(plateau_loss(8), std::log(8.0));
  const double bound = plateau_loss(8) - kNatsOffPlateau;
  EXPECT_EQ(left({{1, bound}}), std::nullopt);
  EXPECT_EQ(left({{1, std::nextafter(bound, 0.0)}}), 1);
}

// 1 pair in batches 0 to 49, 2 in those up to 99, then 3. Step s trains on batch s - 1.
TEST(Plateau, OfACurriculumHasThePairsOfTheStep) {
  constexpr const char* kGrowing = R"({"task": {"n_pairs": 3, "curriculum": 100}})";
  const auto growing = [](const Points& points) {
    return plateau_of(kGrowing, curve_of(points)).value_or(Plateau()).left;
  };
  EXPECT_EQ(growing({{50, 0.1}, {51, 0.1}}), 51) << "with a single pair there is no plateau";
  // Below ln 3 - 0.5 = 0.60 and above ln 2 - 0.5 = 0.19.
  EXPECT_EQ(growing({{51, 0.3}, {100, 0.3}}), std::nullopt);
  EXPECT_EQ(growing({{51, 0.3}, {100, 0.3}, {101, 0.3}}), 101);
  EXPECT_EQ(plateau_of(R"({"task": {"n_pairs": 3}})", curve_of({{51, 0.3}}))->left, 51);
}

// A loss of 1 is off the plateau of 8 pairs, and on that of 2.
TEST(Plateau, OfSegmentsHasThePairsOfTheStepsSegment) {
  constexpr const char* kSegments = R"({"task": {
      "train_segments": [{"n_pairs": 2, "seq_len": 25, "steps": 2},
                         {"n_pairs": 8, "seq_len": 25, "steps": 3}]}})";
  EXPECT_EQ(plateau_of(kSegments, flat(10, 1.0))->left, 8);
  EXPECT_EQ(plateau_of(kSegments, flat(7, 1.0))->left, std::nullopt);
  EXPECT_EQ(plateau_of(kSegments, flat(7, 0.1))->left, 1);
}

TEST(Plateau, OfShuffledSegmentsHasThePairsOfTheSeedsOrder) {
  constexpr Index kSteps = 40;
  std::set<Index> left;
  for (const CellRecord& record : testing::records_of(
           R"({"seeds": [1, 2, 3, 4, 5, 6], "mixers": ["vla"], "task": {
               "segment_order": "shuffled",
               "train_segments": [{"n_pairs": 2, "seq_len": 25, "steps": 10},
                                  {"n_pairs": 8, "seq_len": 25, "steps": 10}]}})")) {
    TrainSizes sizes(record.config);
    std::optional<Index> expected;
    for (Index step = kSteps; step >= 1; --step) {
      if (sizes.configs()[sizes.at(step - 1)].task.n_pairs == 2) break;
      expected = step;
    }
    const auto plateau = vla_bench::plateau_of(record.config, flat(kSteps, 1.0));
    ASSERT_TRUE(plateau.has_value());
    EXPECT_EQ(plateau->left, expected);
    left.insert(expected.value_or(0));
  }
  EXPECT_GT(left.size(), 1U) << "the seeds' orders differ";
}

TEST(Plateau, StepsWithASinglePairSayNothing) {
  EXPECT_FALSE(plateau_of(R"({"task": {"n_pairs": 1}})", flat(4, 0.0)).has_value());
  constexpr const char* kOneAndEight = R"({"task": {
      "train_segments": [{"n_pairs": 8, "seq_len": 25, "steps": 2},
                         {"n_pairs": 1, "seq_len": 25, "steps": 2}]}})";
  EXPECT_EQ(plateau_of(kOneAndEight, flat(4, 1.0))->left, 1);
  EXPECT_EQ(plateau_of(kOneAndEight, flat(4, 2.0))->left, std::nullopt);
}

TEST(Plateau, OnlyPairsAndACurveHaveOne) {
  EXPECT_FALSE(plateau_of(R"({"experiment": "copy"})", flat(4, 0.0)).has_value());
  EXPECT_FALSE(plateau_of(kEight, Table(history_schema())).has_value());
}

}  // namespace
}  // namespace vla_bench
