#include "claims/judge.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

Value text(const char* value) { return std::string(value); }
Value whole(std::int64_t value) { return value; }

/// A summary with two labels at two sizes, and a raw table over seeds.
std::vector<Table> tables() {
  Table summary;
  summary.name = "accuracy_summary";
  summary.columns = {"label", "n_pairs", "count_ok", "accuracy_mean", "accuracy_ci95"};
  summary.add({text("vla"), whole(8), whole(5), 1.0, 0.0});
  summary.add({text("vla"), whole(24), whole(5), 0.9, 0.09});
  summary.add({text("linear"), whole(8), whole(3), 0.25, 0.05});
  summary.add({text("linear"), whole(24), whole(0), Value(), Value()});
  Table raw;
  raw.name = "state_norm";
  raw.columns = {"label", "seed", "t", "s_norm"};
  raw.add({text("vla"), whole(1), whole(10), 10.0});
  raw.add({text("vla"), whole(2), whole(10), 14.0});
  raw.add({text("vla"), whole(1), whole(100), 15.0});
  raw.add({text("vla"), whole(2), whole(100), std::numeric_limits<double>::quiet_NaN()});
  Table crossover;
  crossover.name = "latency_crossover";
  crossover.columns = {"label", "seq_len", "basis"};
  crossover.add({text("vla"), Value(), text("never")});
  return {summary, raw, crossover};
}

Selection accuracy_of(const char* label, std::int64_t n_pairs) {
  return {.table = "accuracy_summary",
          .column = "accuracy_mean",
          .where = {{{"label", {text(label)}}, {"n_pairs", {whole(n_pairs)}}}}};
}

Selection norms_at(std::int64_t t, Reduction statistic) {
  return {.table = "state_norm",
          .column = "s_norm",
          .where = {{{"t", {whole(t)}}}},
          .statistic = statistic};
}

std::optional<Measurement> measured(const Selection& selection) {
  return measure(tables(), selection, "x.json: /criteria/0");
}

Judgement judged(const Selection& selection, std::optional<double> low,
                 std::optional<double> high) {
  return judge(tables(), {.what = "it",
                          .of = selection,
                          .over = {},
                          .accept = {low, high},
                          .equals = {},
                          .why = "so",
                          .place = "x.json: /criteria/0"});
}

TEST(Measure, TakesIntervalAndCountFromTheRow) {
  const auto found = measured(accuracy_of("vla", 24));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(number(found->value), 0.9);
  EXPECT_EQ(found->ci95, 0.09);
  EXPECT_EQ(found->count, 5);
}

TEST(Measure, WholeAndRealNumbersCompareByValue) {
  Selection selection = accuracy_of("vla", 24);
  selection.where.columns[1].second = {24.0};
  EXPECT_TRUE(measured(selection).has_value());
}

TEST(Measure, NothingWhereNoRowMatchesOrTheTableIsMissing) {
  EXPECT_FALSE(measured(accuracy_of("vla", 7)).has_value());
  Selection elsewhere = accuracy_of("vla", 8);
  elsewhere.table = "recall_summary";
  EXPECT_FALSE(measured(elsewhere).has_value());
}

TEST(Measure, SeveralRowsNeedAStatistic) {
  Selection both = accuracy_of("vla", 8);
  both.where.columns[1].second = {whole(8), whole(24)};
  try {
    measured(both);
    FAIL() << "two rows are not one";
  } catch (const BadInput& error) {
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with("x.json: /criteria/0: 2 rows of accuracy_summary match"));
    EXPECT_NE(message.find("differ in n_pairs, accuracy_mean"), std::string::npos) << message;
  }
  both.statistic = Reduction::min;
  EXPECT_EQ(number(measured(both)->value), 0.9);
  EXPECT_EQ(measured(both)->ci95, 0.09) << "of the row that decides";
  both.statistic = Reduction::max;
  EXPECT_EQ(number(measured(both)->value), 1.0);
  both.statistic = Reduction::mean;
  EXPECT_DOUBLE_EQ(*number(measured(both)->value), 0.95);
  EXPECT_FALSE(measured(both)->ci95.has_value()) << "sizes are no repetitions";
}

TEST(Measure, TheMeanOfRawRowsHasStudentsInterval) {
  const auto found = measured(norms_at(10, Reduction::mean));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(number(found->value), 12.0);
  EXPECT_EQ(found->count, 2);
  // t(0.975, 1) = 12.706; the standard error of 10 and 14 is 2.
  EXPECT_NEAR(found->ci95.value(), 12.706 * 2.0, 1e-2);
}

TEST(Measure, NanIsNoExtremeYetSpoilsAMean) {
  EXPECT_EQ(number(measured(norms_at(100, Reduction::max))->value), 15.0);
  EXPECT_EQ(measured(norms_at(100, Reduction::max))->without_number, 1);
  EXPECT_EQ(measured(norms_at(10, Reduction::max))->without_number, 0);
  EXPECT_TRUE(std::isnan(*number(measured(norms_at(100, Reduction::mean))->value)));
}

TEST(Measure, AnUnknownColumnIsNamedWithThoseThereAre) {
  Selection selection = accuracy_of("vla", 8);
  selection.where.columns.emplace_back("mixer", std::vector<Value>{text("vla")});
  try {
    measured(selection);
    FAIL() << "no such column";
  } catch (const BadInput& error) {
    EXPECT_STREQ(error.what(),
                 "x.json: /criteria/0: table accuracy_summary has no column \"mixer\"; it has "
                 "label, n_pairs, count_ok, accuracy_mean, accuracy_ci95");
  }
}

TEST(Ratio, AddsRelativeErrorsInSquares) {
  const Measurement quotient =
      ratio({.value = 30.0, .ci95 = 3.0, .count = 5}, {.value = 10.0, .ci95 = 0.5, .count = 3});
  EXPECT_EQ(number(quotient.value), 3.0);
  EXPECT_NEAR(quotient.ci95.value(), 3.0 * std::hypot(0.1, 0.05), 1e-12);
  EXPECT_EQ(quotient.count, 3);
  EXPECT_EQ(ratio({.value = 1.0}, {.value = 0.0}).value, Value()) << "no quotient";
  EXPECT_FALSE(ratio({.value = 1.0}, {.value = 2.0, .ci95 = 0.1}).ci95.has_value());
}

TEST(Judge, BothBoundsAreIncluded) {
  EXPECT_EQ(judged(accuracy_of("vla", 24), 0.9, 0.9).met, true);
  EXPECT_EQ(judged(accuracy_of("vla", 24), 0.91, {}).met, false);
  EXPECT_EQ(judged(accuracy_of("vla", 24), {}, 0.89).met, false);
  EXPECT_EQ(judged(accuracy_of("vla", 24), 0.5, {}).met, true);
}

TEST(Judge, SaysWhenTheIntervalReachesAcrossABound) {
  EXPECT_EQ(judged(accuracy_of("vla", 24), 0.85, {}).note, "the interval reaches across a bound");
  EXPECT_EQ(judged(accuracy_of("vla", 24), 0.95, {}).note, "the interval reaches across a bound");
  EXPECT_EQ(judged(accuracy_of("vla", 24), 0.5, {}).note, "");
}

TEST(Judge, ARowWithoutANumberIsNotMetAndNoRowIsNoRun) {
  const Judgement empty = judged(accuracy_of("linear", 24), 0.0, {});
  EXPECT_EQ(empty.met, false);
  EXPECT_EQ(empty.note, "the row holds no number");
  const Judgement none = judged(accuracy_of("deltanet", 24), 0.0, {});
  EXPECT_FALSE(none.met.has_value());
  EXPECT_EQ(none.note, "no such row of accuracy_summary");
  EXPECT_EQ(judged(norms_at(100, Reduction::mean), {}, 1e9).met, false) << "NaN is in no interval";
}

// The lowest of those that did not diverge is not the lowest.
TEST(Judge, AnExtremeIsUnknownWhereARowHoldsNoNumber) {
  Selection both = accuracy_of("linear", 8);
  both.where.columns[1].second = {whole(8), whole(24)};
  both.statistic = Reduction::min;
  const Judgement lowest = judged(both, 0.2, {});
  EXPECT_EQ(number(lowest.measured.value), 0.25);
  EXPECT_EQ(lowest.met, false);
  EXPECT_EQ(lowest.note, "1 of its rows holds no number");
  EXPECT_EQ(judged(norms_at(100, Reduction::max), {}, 1e9).met, false);
  EXPECT_EQ(judged(norms_at(10, Reduction::max), {}, 1e9).met, true);
}

TEST(Judge, DividesByTheSecondSelection) {
  Criterion criterion{.what = "gain",
                      .of = accuracy_of("vla", 8),
                      .over = accuracy_of("linear", 8),
                      .accept = {3.9, 4.1},
                      .equals = {},
                      .why = "so",
                      .place = "x"};
  const Judgement judgement = judge(tables(), criterion);
  EXPECT_EQ(judgement.met, true);
  EXPECT_EQ(number(judgement.measured.value), 4.0);
  criterion.over = accuracy_of("linear", 9);
  EXPECT_FALSE(judge(tables(), criterion).met.has_value());
}

TEST(Judge, ComparesTexts) {
  Criterion criterion{.what = "basis",
                      .of = {.table = "latency_crossover", .column = "basis", .where = {}},
                      .over = {},
                      .accept = {},
                      .equals = "measured",
                      .why = "so",
                      .place = "x"};
  EXPECT_EQ(judge(tables(), criterion).met, false);
  criterion.equals = "never";
  EXPECT_EQ(judge(tables(), criterion).met, true);
}

std::vector<Judgement> all(std::initializer_list<std::optional<bool>> mets) {
  std::vector<Judgement> judgements;
  for (const auto met : mets) judgements.push_back({.measured = {}, .met = met, .note = ""});
  return judgements;
}

TEST(VerdictOf, MapsCriteriaToAVerdict) {
  EXPECT_EQ(verdict_of(all({true, true}), {}), Verdict::reproduced);
  EXPECT_EQ(verdict_of(all({true, false}), {}), Verdict::in_part);
  EXPECT_EQ(verdict_of(all({false, false}), {}), Verdict::not_reproduced);
  EXPECT_EQ(verdict_of(all({true, {}}), {}), Verdict::no_run);
  EXPECT_EQ(verdict_of({}, {}), Verdict::no_run);
}

TEST(VerdictOf, TheConditionCountsWhereTheClaimFails) {
  EXPECT_EQ(verdict_of(all({false}), all({true, true})), Verdict::not_as_stated);
  EXPECT_EQ(verdict_of(all({true, false}), all({true})), Verdict::not_as_stated);
  EXPECT_EQ(verdict_of(all({true, false}), all({false})), Verdict::in_part);
  EXPECT_EQ(verdict_of(all({false}), all({true, false})), Verdict::not_reproduced);
  EXPECT_EQ(verdict_of(all({true}), all({true})), Verdict::reproduced);
  EXPECT_EQ(verdict_of(all({true}), all({{}})), Verdict::reproduced) << "not needed";
  EXPECT_EQ(verdict_of(all({false}), all({{}})), Verdict::no_run);
}

/// accuracy_summary with one row: this median loss at n = 64, and cells that were not ok.
std::vector<Table> one_group(double loss, const std::string& not_ok) {
  Table table;
  table.name = "accuracy_summary";
  table.columns = {"label", "n_pairs", "accuracy_mean", "loss_median", "not_ok"};
  table.add(
      {std::string("vla"), std::int64_t{64}, 0.9, loss, not_ok.empty() ? Value() : Value(not_ok)});
  return {table};
}

Criterion about(std::optional<Subject> subject) {
  return {.what = "accuracy",
          .of = {.table = "accuracy_summary", .column = "accuracy_mean", .where = {}},
          .over = {},
          .accept = {0.5, 1.0},
          .equals = {},
          .why = "w",
          .about = subject,
          .place = "x"};
}

// Above ln 64 + 0.3 = 4.46 the median seed does worse than guessing among the 64 values shown.
TEST(Judge, AMemoryThatIsNotUsedIsUndecided) {
  const Judgement unlearned = judge(one_group(4.5, ""), about(Subject::memory));
  EXPECT_TRUE(unlearned.undecided);
  EXPECT_NE(unlearned.note.find("vla at n = 64"), std::string::npos) << unlearned.note;
  EXPECT_FALSE(judge(one_group(4.4, ""), about(Subject::memory)).undecided);
  EXPECT_EQ(judge(one_group(4.4, ""), about(Subject::memory)).met, true);
  EXPECT_FALSE(judge(one_group(4.5, ""), about({})).undecided) << "only where it is marked";
  const std::vector<Judgement> one = {judge(one_group(1.0, ""), about({})), unlearned};
  EXPECT_EQ(verdict_of(one, {}), Verdict::undecided);
}

TEST(Judge, CellsThatAreNotOkCountAgainstItUnlessItIsAboutThem) {
  const std::string names = "seed 44: diverged: loss is nan at step 17";
  const Judgement survivors = judge(one_group(1.0, names), about({}));
  EXPECT_EQ(survivors.met, false);
  EXPECT_NE(survivors.note.find(names), std::string::npos) << survivors.note;
  EXPECT_EQ(judge(one_group(1.0, names), about(Subject::divergence)).met, true);
}

}  // namespace
}  // namespace vla_bench
