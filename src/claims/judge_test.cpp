#include "claims/judge.h"

#include <gtest/gtest.h>

#include "claims/test_tables.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

using testing::accuracy_of;
using testing::all_tables;
using testing::norm_of;
using testing::timing_of;

Criterion criterion_of(const Selection& selection, std::optional<double> low,
                       std::optional<double> high) {
  return {.what = "it",
          .of = selection,
          .over = {},
          .accept = {low, high},
          .equals = {},
          .why = "so",
          .place = "x.json: /criteria/0"};
}

Judgement judged(const Selection& selection, std::optional<double> low,
                 std::optional<double> high) {
  return judge(all_tables(), criterion_of(selection, low, high));
}

TEST(Judge, BothBoundsAreIncluded) {
  EXPECT_EQ(judged(accuracy_of("vla", {24}), 0.9, 0.9).finding, Finding::met);
  EXPECT_EQ(judged(accuracy_of("vla", {24}), 0.91, {}).finding, Finding::not_met);
  EXPECT_EQ(judged(accuracy_of("vla", {24}), {}, 0.89).finding, Finding::not_met);
  EXPECT_EQ(judged(accuracy_of("vla", {24}), 0.5, {}).finding, Finding::met);
}

TEST(Judge, SaysWhenTheIntervalReachesAcrossABound) {
  EXPECT_EQ(judged(accuracy_of("vla", {24}), 0.85, {}).note, "the interval reaches across a bound");
  EXPECT_EQ(judged(accuracy_of("vla", {24}), 0.95, {}).note, "the interval reaches across a bound");
  EXPECT_EQ(judged(accuracy_of("vla", {24}), 0.5, {}).note, "");
}

TEST(Judge, ARowWithoutANumberIsNotMetAndNoRowIsOpen) {
  const Judgement empty = judged(accuracy_of("deltanet", {8}), 0.0, {});
  EXPECT_EQ(empty.finding, Finding::not_met);
  EXPECT_EQ(empty.note, "the row holds no number");
  std::vector<Table> sound = {testing::accuracy_summary()};
  sound[0].rows.resize(3);  // in which no cell is lost
  const Judgement none = judge(sound, criterion_of(accuracy_of("vla", {9}), 0.0, {}));
  EXPECT_EQ(none.finding, Finding::open);
  EXPECT_EQ(none.note, "no such row of accuracy_summary");
}

// Case 1: the survivors after two of five diverged meet the bounds, but decide nothing.
TEST(Judge, NeverRestsOnTheCellsThatAreLeft) {
  const Judgement survivors = judged(accuracy_of("linear", {24}), 0.0, 1.0);
  EXPECT_EQ(survivors.finding, Finding::not_met);
  EXPECT_EQ(survivors.note, "not all of its cells are ok");
  EXPECT_EQ(survivors.measured.cells, "3 of 5");
  EXPECT_EQ(survivors.lost, std::set<std::string>{"linear (seed 44: diverged: loss is nan at step "
                                                  "17; seed 45: failed: no room)"});
  EXPECT_EQ(judged(accuracy_of("linear", {8}), 0.0, 1.0).finding, Finding::met) << "skipped only";
}

TEST(Judge, CountsALostCellOfAnyRowItSelects) {
  // The largest of the two is that of n = 8, where no cell is lost.
  const Judgement extreme = judged(accuracy_of("linear", {8, 24}, Reduction::max), 0.0, 1.0);
  EXPECT_EQ(number(extreme.measured.value), 0.25);
  EXPECT_EQ(extreme.finding, Finding::not_met);
  EXPECT_EQ(extreme.lost.size(), 1u);

  Criterion divided = criterion_of(accuracy_of("vla", {24}), 0.0, {});
  divided.over = accuracy_of("linear", {24});
  EXPECT_EQ(judge(all_tables(), divided).finding, Finding::not_met);
  EXPECT_EQ(judge(all_tables(), divided).lost.size(), 1u);
}

// When nothing could be measured (a law whose timings all diverged), there is no row.
TEST(Judge, NoRowWhereCellsAreLostIsNotMet) {
  const Criterion gone = criterion_of(timing_of("latency_fit", "exponent", "unfused"), 0.0, {});
  const Judgement judgement = judge(all_tables(), gone);
  EXPECT_EQ(judgement.finding, Finding::not_met);
  EXPECT_EQ(judgement.note, "no such row of latency_fit");
  EXPECT_FALSE(judgement.lost.empty());
}

TEST(Judge, DivergenceCountsNotWhereItIsAskedFor) {
  Criterion asked = criterion_of(accuracy_of("linear", {24}), 0.0, 1.0);
  asked.about = Subject::divergence;
  const Judgement judgement = judge(all_tables(), asked);
  EXPECT_EQ(judgement.finding, Finding::met);
  EXPECT_EQ(judgement.lost.size(), 1u) << "named all the same";
}

TEST(Judge, AMemoryThatLearnedNothingIsUndecided) {
  Criterion memory = criterion_of(accuracy_of("vla", {24}), 0.99, 1.0);
  EXPECT_EQ(judge(all_tables(), memory).finding, Finding::not_met) << "not marked";
  memory.about = Subject::memory;
  const Judgement unlearned = judge(all_tables(), memory);
  EXPECT_EQ(unlearned.finding, Finding::undecided);
  EXPECT_EQ(unlearned.note,
            "has not learned to guess among the values shown: vla (n_pairs 24, median loss 3.60, "
            "ln 24 + 0.3 = 3.48)");
  memory.of = accuracy_of("vla", {8});
  EXPECT_EQ(judge(all_tables(), memory).finding, Finding::met) << "learned";
  memory.over = accuracy_of("vla", {24});
  EXPECT_EQ(judge(all_tables(), memory).finding, Finding::undecided) << "its divisor has not";
}

// The lowest of the rows with a number need not be the lowest of all.
TEST(Judge, AnExtremeIsUnknownWhereARowHoldsNoNumber) {
  Selection all = accuracy_of("linear", {8}, Reduction::min);
  all.where.columns[0].second = {testing::text("linear"), testing::text("deltanet")};
  const Judgement lowest = judged(all, 0.2, {});
  EXPECT_EQ(number(lowest.measured.value), 0.25);
  EXPECT_EQ(lowest.finding, Finding::not_met);
  EXPECT_EQ(lowest.note, "1 of its rows holds no number");
  EXPECT_EQ(judged(norm_of("vla", Reduction::max), {}, 1e9).finding, Finding::met);
}

TEST(Judge, DividesByTheSecondSelection) {
  Criterion criterion = criterion_of(accuracy_of("vla", {8}), 3.9, 4.1);
  criterion.over = accuracy_of("linear", {8});
  const Judgement judgement = judge(all_tables(), criterion);
  EXPECT_EQ(judgement.finding, Finding::met);
  EXPECT_EQ(number(judgement.measured.value), 4.0);
  EXPECT_EQ(judgement.measured.cells, "5 of 5 over 4 of 5");
}

TEST(Judge, ComparesTexts) {
  Criterion criterion{.what = "basis",
                      .of = {.table = "latency_fit", .column = "line", .where = {}},
                      .over = {},
                      .accept = {},
                      .equals = "vla",
                      .why = "so",
                      .place = "x"};
  criterion.of.where.columns = {{"implementation", {testing::text("recurrent")}}};
  EXPECT_EQ(judge(all_tables(), criterion).finding, Finding::met);
  criterion.equals = "linear";
  EXPECT_EQ(judge(all_tables(), criterion).finding, Finding::not_met);
}

std::vector<Judgement> all(std::initializer_list<Finding> findings) {
  std::vector<Judgement> judgements;
  for (const Finding finding : findings) judgements.push_back({.finding = finding});
  return judgements;
}

constexpr Finding kMet = Finding::met;
constexpr Finding kNotMet = Finding::not_met;
constexpr Finding kOpen = Finding::open;
constexpr Finding kUndecided = Finding::undecided;

TEST(VerdictOf, MapsCriteriaToAVerdict) {
  EXPECT_EQ(verdict_of(all({kMet, kMet}), {}), Verdict::reproduced);
  EXPECT_EQ(verdict_of(all({kMet, kNotMet}), {}), Verdict::in_part);
  EXPECT_EQ(verdict_of(all({kNotMet, kNotMet}), {}), Verdict::not_reproduced);
  EXPECT_EQ(verdict_of(all({kMet, kOpen}), {}), Verdict::no_run);
  EXPECT_EQ(verdict_of({}, {}), Verdict::no_run);
}

TEST(VerdictOf, OneUndecidedCriterionLeavesTheClaimUndecided) {
  EXPECT_EQ(verdict_of(all({kMet, kUndecided}), {}), Verdict::undecided);
  EXPECT_EQ(verdict_of(all({kUndecided, kNotMet}), {}), Verdict::undecided);
  EXPECT_EQ(verdict_of(all({kUndecided, kNotMet}), all({kMet})), Verdict::undecided);
  EXPECT_EQ(verdict_of(all({kUndecided, kOpen}), {}), Verdict::no_run);
  EXPECT_EQ(verdict_of(all({kNotMet}), all({kUndecided})), Verdict::undecided);
  EXPECT_EQ(verdict_of(all({kMet}), all({kUndecided})), Verdict::reproduced) << "not needed";
}

TEST(VerdictOf, TheConditionCountsWhereTheClaimFails) {
  EXPECT_EQ(verdict_of(all({kNotMet}), all({kMet, kMet})), Verdict::not_as_stated);
  EXPECT_EQ(verdict_of(all({kMet, kNotMet}), all({kMet})), Verdict::not_as_stated);
  EXPECT_EQ(verdict_of(all({kMet, kNotMet}), all({kNotMet})), Verdict::in_part);
  EXPECT_EQ(verdict_of(all({kNotMet}), all({kMet, kNotMet})), Verdict::not_reproduced);
  EXPECT_EQ(verdict_of(all({kMet}), all({kMet})), Verdict::reproduced);
  EXPECT_EQ(verdict_of(all({kMet}), all({kOpen})), Verdict::reproduced) << "not needed";
  EXPECT_EQ(verdict_of(all({kNotMet}), all({kOpen})), Verdict::no_run);
}

}  // namespace
}  // namespace vla_bench
