#include "claims/selection.h"

#include <gtest/gtest.h>

#include "claims/test_tables.h"
#include "core/error.h"

namespace vla_bench {
namespace {

using testing::accuracy_of;
using testing::all_tables;
using testing::timing_of;
using Names = std::set<std::string>;

Names lost(const Selection& selection) {
  const std::vector<Table> tables = all_tables();
  return lost_cells(select_rows(tables, selection, "x"));
}

std::vector<std::string> unlearned(const Selection& selection) {
  const std::vector<Table> tables = all_tables();
  return unlearned_groups(select_rows(tables, selection, "x"));
}

std::size_t rows(const Selection& selection) {
  const std::vector<Table> tables = all_tables();
  return select_rows(tables, selection, "x").rows.size();
}

TEST(SelectRows, TakesThoseWhereEveryColumnHolds) {
  EXPECT_EQ(rows(accuracy_of("vla", {8})), 1u);
  EXPECT_EQ(rows(accuracy_of("vla", {8, 24})), 2u);
  EXPECT_EQ(rows(accuracy_of("vla", {7})), 0u);
  Selection elsewhere = accuracy_of("vla", {8});
  elsewhere.table = "recall_summary";
  EXPECT_EQ(rows(elsewhere), 0u);
}

TEST(SelectRows, WholeAndRealNumbersCompareByValue) {
  Selection selection = accuracy_of("vla", {24});
  selection.where.columns[1].second = {24.0};
  EXPECT_EQ(rows(selection), 1u);
}

TEST(SelectRows, AnUnknownColumnIsNamedWithThoseThereAre) {
  Selection selection = accuracy_of("vla", {8});
  selection.where.columns.emplace_back("mixer", std::vector<Value>{testing::text("vla")});
  try {
    rows(selection);
    FAIL() << "no such column";
  } catch (const BadInput& error) {
    EXPECT_STREQ(error.what(),
                 "x: table accuracy_summary has no column \"mixer\"; it has line, label, n_pairs, "
                 "setting, cells, not_ok, accuracy_mean, accuracy_low, accuracy_high, "
                 "loss_median");
  }
}

TEST(LostCells, NamesWhatDivergedOrFailedButNotWhatWasSkipped) {
  EXPECT_EQ(lost(accuracy_of("linear", {24})),
            Names{"linear (seed 44: diverged: loss is nan at step 17; seed 45: failed: no room)"});
  EXPECT_EQ(lost(accuracy_of("linear", {8, 24})),
            Names{"linear n_pairs=24 (seed 44: diverged: loss is nan at step 17; seed 45: failed: "
                  "no room)"});
  EXPECT_EQ(lost(accuracy_of("linear", {8})), Names{});
  EXPECT_EQ(lost(accuracy_of("vla", {8, 24})), Names{});
}

TEST(LostCells, ACellIsOneAtEveryToken) {
  EXPECT_EQ(lost(testing::norm_of("linear", Reduction::max)),
            Names{"linear (seed 1: diverged: inf at token 50)"});
}

TEST(LostCells, BehindALawAreItsTimingsAndThoseOfItsBaseline) {
  EXPECT_EQ(lost(timing_of("latency_fit", "exponent", "recurrent")), Names{});
  EXPECT_EQ(lost(timing_of("latency_fit", "exponent", "sequential")),
            Names{"vla (64 tokens: seed 42: diverged: not finite at token 9)"});
  EXPECT_EQ(lost(timing_of("latency_crossover", "seq_len", "recurrent")),
            Names{"vla (softmax at 128 tokens: seed 42: failed: out of memory)"});
}

TEST(UnlearnedGroups, AreAboveTheLossOfAGuessAmongTheValuesShown) {
  EXPECT_EQ(unlearned(accuracy_of("vla", {8, 24})),
            std::vector<std::string>{"vla (n_pairs 24, median loss 3.60, ln 24 + 0.3 = 3.48)"});
  EXPECT_TRUE(unlearned(accuracy_of("linear", {8, 24})).empty());
  EXPECT_TRUE(unlearned(accuracy_of("deltanet", {8})).empty()) << "nothing was measured";
  EXPECT_TRUE(unlearned(testing::norm_of("vla", Reduction::max)).empty()) << "no loss";
}

/// A group with two slices, of which one seed is lost: (mean, 8 pairs, 512 pairs).
Table sliced_summary(double mean_loss) {
  Table table;
  table.name = "accuracy_summary";
  table.columns = {"line",   "n_pairs", "seq_len",       "slice",      "cells",
                   "not_ok", "config",  "accuracy_mean", "loss_median"};
  const auto add = [&](Value n_pairs, Value seq_len, const char* slice, double loss) {
    table.add({testing::text("vla"), n_pairs, seq_len, testing::text(slice),
               testing::text("1 of 2"), testing::text("seed 1: diverged: loss is nan at step 17"),
               testing::text("12345678"), 0.5, loss});
  };
  add(Value(), Value(), "mean", mean_loss);
  add(testing::whole(8), testing::whole(64), "64/8", 2.0);
  add(testing::whole(512), testing::whole(2048), "2048/512", 6.0);
  return table;
}

TEST(LostCells, ACellIsOneInEverySlice) {
  const std::vector<Table> tables = {sliced_summary(4.0)};
  EXPECT_EQ(lost_cells(tables), Names{"vla (seed 1: diverged: loss is nan at step 17)"});
}

TEST(UnlearnedGroups, TheMeanOfSlicesIsComparedWithTheMeanOfTheirGuesses) {
  // (ln 8 + ln 512) / 2 = ln 64 = 4.16.
  const auto of_mean = [](double loss) {
    const std::vector<Table> tables = {sliced_summary(loss)};
    const Selection mean{.table = "accuracy_summary",
                         .column = "accuracy_mean",
                         .where = {{{"slice", {testing::text("mean")}}}}};
    return unlearned_groups(select_rows(tables, mean, "x"));
  };
  EXPECT_TRUE(of_mean(4.4).empty());
  EXPECT_EQ(of_mean(4.5),
            std::vector<std::string>{"vla (mean of slices, median loss 4.50, ln n_pairs of each "
                                     "slice + 0.3 = 4.46)"});
}

}  // namespace
}  // namespace vla_bench
