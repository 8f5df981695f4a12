#include "report/summary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/statistics.h"
#include "testing/records.h"

namespace vla_bench {
namespace {

using testing::add_row;
using testing::cell;
using testing::find;
using testing::made_by;
using testing::real;
using testing::record_of;
using testing::records_of;
using testing::text;

/// Fills in what a training measured; 0.5 for the loss.
CellRecord trained(CellRecord record, double accuracy, double loss = 0.5) {
  add_row(record, Training::table(),
          {{"steps", record.config.train.steps},
           {"accuracy", accuracy},
           {"loss", loss},
           {"train_seconds", 12.5}});
  return record;
}
CellRecord ended(CellRecord record, const char* status, const char* reason) {
  record.outcome = {.status = status, .reason = reason};
  add_row(record, Training::table(), {{"steps", std::int64_t{17}}});
  return record;
}

CellRecord training(int seed, const char* more = "", const char* mixer = "\"vla\"") {
  return record_of(fmt::format(R"({{"mixers": [{}], "task": {{"n_pairs": 8}}, "seeds": [{}]{}}})",
                               mixer, seed, more));
}

TEST(Summary, AccuracyOverSeeds) {
  const std::vector<CellRecord> cells = {trained(training(44), 0.9, 1.0),
                                         trained(training(42), 1.0, 5.0),
                                         trained(training(43), 0.8, 0.0),
                                         ended(training(45), "diverged", "loss is nan at step 17"),
                                         ended(training(46), "failed", "out of memory"),
                                         trained(training(42, "", "\"linear\""), 0.25)};
  const std::vector<Table> tables = gather_tables(cells);
  ASSERT_EQ(tables.size(), 2u);
  EXPECT_EQ(tables[0].name, "accuracy");
  EXPECT_EQ(tables[0].rows.size(), 6u);
  EXPECT_EQ(cell(tables[0], 1, "seed"), Value(std::int64_t{42}));
  EXPECT_EQ(cell(tables[0], 0, "queries"), Value(std::int64_t{20 * 32 * 8}));

  const Table& summary = find(tables, "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 2u);
  EXPECT_EQ(text(summary, 0, "line"), "linear");
  EXPECT_EQ(text(summary, 0, "cells"), "1 of 1");
  EXPECT_EQ(real(summary, 0, "accuracy_mean"), 0.25);
  EXPECT_EQ(cell(summary, 0, "accuracy_sd"), Value()) << "one seed has no spread";
  EXPECT_EQ(cell(summary, 0, "accuracy_low"), Value());
  EXPECT_EQ(cell(summary, 0, "not_ok"), Value());
  EXPECT_EQ(text(summary, 1, "cells"), "3 of 5");
  EXPECT_EQ(text(summary, 1, "not_ok"),
            "seed 45: diverged: loss is nan at step 17; seed 46: failed: out of memory");
  EXPECT_EQ(real(summary, 1, "steps"), 3000) << "those asked for";
  EXPECT_EQ(real(summary, 1, "learning_rate"), 3e-4);
  // Roundings of a mean of three.
  EXPECT_NEAR(real(summary, 1, "accuracy_mean"), 0.9, 1e-15);
  EXPECT_NEAR(real(summary, 1, "accuracy_sd"), 0.1, 1e-15);
  const double half = 4.302652729749464 * 0.1 / std::sqrt(3.0);
  EXPECT_NEAR(real(summary, 1, "accuracy_low"), 0.9 - half, 1e-14);
  EXPECT_EQ(real(summary, 1, "accuracy_high"), 1.0) << "no accuracy is larger";
  EXPECT_EQ(real(summary, 1, "loss_median"), 1.0);
  EXPECT_EQ(real(summary, 1, "loss_low"), 0.0);
  EXPECT_EQ(cell(summary, 0, "state_bytes"), Value(std::int64_t{2 * 4 * (32 * 32 + 32) * 4}));
  EXPECT_EQ(cell(summary, 1, "state_bytes"), Value(std::int64_t{2 * 4 * (2 * 32 * 32 + 32) * 4}));
  EXPECT_EQ(cell(summary, 1, "conv_state_bytes"), Value(std::int64_t{0}));
}

TEST(Summary, SeedsThatAgreeAreNotCertain) {
  const std::vector<CellRecord> cells = {trained(training(1), 1.0), trained(training(2), 1.0)};
  const Table summary = find(gather_tables(cells), "accuracy_summary");
  EXPECT_EQ(real(summary, 0, "accuracy_sd"), 0.0);
  // 5,120 draws, p = 5121 / 5122 by Laplace's rule.
  const double half = 12.70620473617471 * std::sqrt(5121.0 / 5122.0 / 5122.0 / 5120.0 / 2.0);
  EXPECT_NEAR(real(summary, 0, "accuracy_low"), 1.0 - half, 1e-12);
  EXPECT_EQ(real(summary, 0, "accuracy_high"), 1.0);
  EXPECT_LT(real(summary, 0, "loss_low"), 0.5) << "a float32";
  EXPECT_GT(real(summary, 0, "loss_low"), 0.5 - 1e-6);
}

TEST(Summary, AGroupWithNothingOkHasEmptyValues) {
  const std::vector<CellRecord> cells = {ended(training(1), "skipped", "no such kernel")};
  const Table summary = find(gather_tables(cells), "accuracy_summary");
  EXPECT_EQ(text(summary, 0, "cells"), "0 of 1");
  EXPECT_EQ(text(summary, 0, "not_ok"), "seed 1: skipped: no such kernel");
  EXPECT_EQ(cell(summary, 0, "accuracy_mean"), Value());
  EXPECT_EQ(cell(summary, 0, "loss_median"), Value());
}

TEST(Summary, ACellWithoutRowsHasFailed) {
  const std::vector<CellRecord> cells = {training(1)};
  EXPECT_EQ(text(find(gather_tables(cells), "accuracy_summary"), 0, "not_ok"),
            "seed 1: failed: no rows");
}

TEST(Summary, DoesNotDependOnTheOrderOfCells) {
  std::vector<CellRecord> cells;
  for (CellRecord& record : records_of(
           R"({"sweep": {"train.lr": [0.1, 0.2], "task.n_pairs": [2, 10]}, "seeds": [3, 1, 2]})")) {
    const double accuracy = 0.1 * static_cast<double>(record.config.seeds[0]);
    record.provenance = made_by(record.config.seeds[0] == 1 ? "aaaaaaaaaa" : "bbbbbbbbbb");
    cells.push_back(trained(std::move(record), accuracy));
  }
  const std::vector<Table> forwards = gather_tables(cells);
  std::reverse(cells.begin(), cells.end());
  const std::vector<Table> backwards = gather_tables(cells);
  ASSERT_EQ(forwards.size(), backwards.size());
  for (std::size_t i = 0; i < forwards.size(); ++i) {
    EXPECT_EQ(to_csv(forwards[i]), to_csv(backwards[i]));
  }
  // The points of a line follow one another, n_pairs by size.
  const Table& summary = forwards[1];
  EXPECT_EQ(text(summary, 0, "line"), "deltanet lr=0.1");
  EXPECT_EQ(real(summary, 0, "n_pairs"), 2);
  EXPECT_EQ(text(summary, 1, "line"), "deltanet lr=0.1");
  EXPECT_EQ(real(summary, 1, "n_pairs"), 10);
}

// Case 3: the same mixer at two learning rates, three sizes each.
TEST(Summary, SettingsAreLinesOfTheirOwn) {
  std::vector<CellRecord> cells;
  for (
      CellRecord& record : records_of(
          R"({"mixers": ["vla"], "sweep": {"task.n_pairs": [1, 2, 3], "train.lr": [1e-3, 3e-2]}})")) {
    const bool high = record.config.train.lr > 0.01;
    cells.push_back(trained(std::move(record), high ? 1.0 : 0.375));
  }
  const Table summary = find(gather_tables(cells), "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 6u);
  EXPECT_EQ(text(summary, 0, "line"), "vla lr=0.001");
  EXPECT_EQ(real(summary, 0, "n_pairs"), 1);
  EXPECT_EQ(real(summary, 0, "accuracy_mean"), 0.375);
  EXPECT_EQ(text(summary, 3, "line"), "vla lr=0.03");
  EXPECT_EQ(real(summary, 3, "accuracy_mean"), 1.0);
  EXPECT_NE(text(summary, 0, "config"), text(summary, 3, "config"));
  EXPECT_EQ(cell(summary, 0, "setting"), Value()) << "the learning rate has a column";
}

// Case 3b: one seed per rate gives no average over seeds.
TEST(Summary, ASeedARateIsNoAverage) {
  const std::vector<CellRecord> cells = {
      trained(training(1, R"(, "train": {"lr": 1e-3, "weight_decay": 0.1})"), 0.54),
      trained(training(2, R"(, "train": {"lr": 1e-2})"), 1.0)};
  const Table summary = find(gather_tables(cells), "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 2u);
  EXPECT_EQ(text(summary, 0, "line"), "vla lr=0.001");
  EXPECT_EQ(text(summary, 0, "setting"), "weight_decay=0.1");
  EXPECT_EQ(text(summary, 1, "cells"), "1 of 1");
}

TEST(Summary, PrecisionsAndDevicesAreNotAveraged) {
  const std::vector<CellRecord> cells = {
      trained(training(1), 0.5), trained(training(1, R"(, "precision": "tf32")"), 0.9),
      trained(
          record_of(R"({"mixers": ["vla"], "task": {"n_pairs": 8}, "seeds": [1]})", Device::cuda),
          0.7)};
  const Table summary = find(gather_tables(cells), "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 3u);
  EXPECT_EQ(text(summary, 0, "line"), "vla") << "columns tell";
  EXPECT_EQ(text(summary, 0, "device"), "cpu");
  EXPECT_EQ(text(summary, 1, "precision"), "tf32");
  EXPECT_EQ(real(summary, 1, "accuracy_mean"), 0.9);
  EXPECT_EQ(text(summary, 2, "device"), "cuda");
}

TEST(Summary, ProgramVersionsAreTold) {
  std::vector<CellRecord> cells;
  for (int seed = 1; seed <= 5; ++seed) cells.push_back(trained(training(seed), 0.5));
  for (CellRecord& record : cells) record.provenance = made_by("1206d27aaaaaaaa");
  const auto note = [&] { return text(find(gather_tables(cells), "accuracy_summary"), 0, "note"); };
  EXPECT_EQ(note(), "");
  cells[1].provenance = made_by("114b3d1bbbbbbbb");
  cells[4].provenance = made_by("114b3d1bbbbbbbb", "true");
  EXPECT_EQ(note(), "3 program versions: 1206d27 (3), 114b3d1 (1), 114b3d1-dirty (1)");
  cells[4].provenance = {};
  EXPECT_NE(note().find("unknown (1)"), std::string::npos);
}

TEST(Summary, TimesOfSeveralMachinesAreNotAveraged) {
  std::vector<CellRecord> cells = {trained(training(1), 0.5), trained(training(2), 0.5)};
  for (CellRecord& record : cells) record.provenance = made_by("aaaaaaa");
  const auto summary = [&] { return find(gather_tables(cells), "accuracy_summary"); };
  EXPECT_EQ(real(summary(), 0, "train_seconds_mean"), 12.5);
  for (const Provenance& other :
       {made_by("aaaaaaa", "false", "cpu y"), made_by("aaaaaaa", "false", "cpu x", "4"),
        made_by("aaaaaaa", "false", "cpu x", "2", "8")}) {
    cells[1].provenance = other;
    const Table table = summary();
    ASSERT_EQ(table.rows.size(), 1u);
    EXPECT_EQ(cell(table, 0, "train_seconds_mean"), Value());
    EXPECT_NE(text(table, 0, "note").find("train_seconds"), std::string::npos);
    EXPECT_EQ(real(table, 0, "accuracy_mean"), 0.5);
  }
}

CellRecord recalled(int seed, double accuracy, const char* keys = "feature") {
  CellRecord record = record_of(fmt::format(
      R"({{"experiment": "recall", "mixers": ["vla"], "task": {{"n_pairs": 8}}, "seeds": [{}],
           "recall": {{"keys": "{}"}}}})",
      seed, keys));
  add_row(record, Recall::table(), {{"accuracy", accuracy}, {"low", 0.3}, {"high", 0.7}});
  return record;
}

TEST(Summary, RecallOverSeeds) {
  // Two seeds with the same outcome are two measurements.
  std::vector<CellRecord> cells = {recalled(1, 0.5), recalled(2, 0.5), recalled(3, 0.8)};
  cells.push_back(record_of(R"({"experiment": "recall", "mixers": ["vla"], "task": {"n_pairs": 8},
                                "seeds": [4]})"));
  cells[3].outcome = {.status = "failed", .reason = "out of memory"};
  add_row(cells[3], Recall::table(), {});
  const Table summary = find(gather_tables(cells), "recall_summary");
  ASSERT_EQ(summary.rows.size(), 1u);
  EXPECT_EQ(text(summary, 0, "cells"), "3 of 4");
  EXPECT_NEAR(real(summary, 0, "accuracy_mean"), 0.6, 1e-15);
  EXPECT_EQ(text(summary, 0, "interval_over"), "seeds");
  const double half = 4.302652729749464 * std::sqrt(0.03) / std::sqrt(3.0);
  EXPECT_NEAR(real(summary, 0, "accuracy_low"), 0.6 - half, 1e-12);
}

TEST(Summary, RecallOfOneSeedHasTheIntervalOfItsTrials) {
  const std::vector<CellRecord> cells = {recalled(1, 0.5)};
  const Table summary = find(gather_tables(cells), "recall_summary");
  EXPECT_EQ(text(summary, 0, "interval_over"), "trials");
  EXPECT_EQ(real(summary, 0, "accuracy_low"), 0.3);
  EXPECT_EQ(real(summary, 0, "accuracy_high"), 0.7);
  EXPECT_EQ(cell(summary, 0, "accuracy_sd"), Value());
}

// Case 3d.
TEST(Summary, RecallWithOtherKeysIsAnotherLine) {
  const std::vector<CellRecord> cells = {recalled(1, 0.5), recalled(1, 0.9, "gaussian")};
  const Table summary = find(gather_tables(cells), "recall_summary");
  ASSERT_EQ(summary.rows.size(), 2u);
  EXPECT_EQ(text(summary, 0, "line"), "vla keys=feature");
  EXPECT_EQ(text(summary, 1, "line"), "vla keys=gaussian");
  EXPECT_EQ(text(summary, 1, "setting"), "keys=gaussian");
  EXPECT_EQ(real(summary, 1, "accuracy_mean"), 0.9);
}

TEST(Summary, NoCellsGiveNoTables) { EXPECT_TRUE(gather_tables({}).empty()); }

TEST(Summary, HowManyCellsLeftTheirPlateauAndWhen) {
  std::vector<CellRecord> cells;
  for (int seed = 1; seed <= 6; ++seed) cells.push_back(trained(training(seed), 0.5));
  cells[0].plateau = Plateau{.left = 1500};
  cells[1].plateau = Plateau{.left = 500};
  cells[2].plateau = Plateau{};
  cells[3].plateau = Plateau{.left = 2500};
  cells[4].outcome.status = "diverged";
  cells[4].plateau = Plateau{.left = 100};  // not ok; seed 6 has no learning curve
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "accuracy_summary");
  EXPECT_EQ(text(summary, 0, "cells"), "5 of 6");
  EXPECT_EQ(text(summary, 0, "left_plateau"), "3 of 4");
  EXPECT_EQ(real(summary, 0, "plateau_step_median"), 1500);
  EXPECT_EQ(real(summary, 0, "plateau_step_min"), 500);
  EXPECT_EQ(real(summary, 0, "plateau_step_max"), 2500);

  const Table& raw = find(tables, "accuracy");
  ASSERT_EQ(raw.rows.size(), 6u);
  EXPECT_EQ(cell(raw, 0, "seed"), Value(std::int64_t{1}));
  EXPECT_EQ(cell(raw, 0, "plateau_step"), Value(std::int64_t{1500}));
  EXPECT_EQ(cell(raw, 2, "plateau_step"), Value()) << "not left";
  EXPECT_EQ(raw.columns.back(), "config");
}

TEST(Summary, WhereNoCellLeftThePlateauThereIsNoStep) {
  CellRecord record = trained(training(1), 0.5);
  record.plateau = Plateau{};
  const Table summary = find(gather_tables(std::span(&record, 1)), "accuracy_summary");
  EXPECT_EQ(text(summary, 0, "left_plateau"), "0 of 1");
  for (const char* column : {"plateau_step_median", "plateau_step_min", "plateau_step_max"}) {
    EXPECT_EQ(cell(summary, 0, column), Value());
  }
}

TEST(Summary, WithoutAPlateauItsColumnsAreEmpty) {
  const std::vector<CellRecord> cells = {trained(training(1), 0.5)};
  const Table summary = find(gather_tables(cells), "accuracy_summary");
  for (const char* column :
       {"left_plateau", "plateau_step_median", "plateau_step_min", "plateau_step_max"}) {
    EXPECT_EQ(cell(summary, 0, column), Value());
  }
}

constexpr const char* kSlices = R"({"mixers": ["vla"], "seeds": [1, 2], "task": {
    "eval_segments": [{"n_pairs": 4, "seq_len": 64}, {"n_pairs": 8, "seq_len": 64}]},
    "train": {"steps": 900, "stop_accuracy": 0.9}})";

/// A cell with the accuracies of its two slices.
CellRecord sliced(CellRecord record, double first, double second, std::int64_t steps) {
  record.tables.emplace_back(Training::table_with({.slice = true}));
  add_row(record, Training::table_with({.slice = true}),
          {{"steps", steps}, {"accuracy", (first + second) / 2.0}, {"loss", 1.5}});
  for (const Slice& slice : eval_slices(record.config)) {
    const bool is_first = slice.config.task.n_pairs == 4;
    CellRecord own = record;
    own.config = slice.config;
    own.tables.clear();
    own.tables.emplace_back(Training::table_with({.slice = true}));
    add_row(own, Training::table_with({.slice = true}),
            {{"slice", slice.name},
             {"steps", steps},
             {"accuracy", is_first ? first : second},
             {"loss", is_first ? 1.0 : 2.0}});
    record.tables[0].add(own.tables[0].rows[0]);
  }
  return record;
}

TEST(Summary, SlicesAreNeverAveragedTogether) {
  std::vector<CellRecord> cells = records_of(kSlices);
  cells[0] = sliced(std::move(cells[0]), 1.0, 0.25, 500);
  cells[1] = sliced(std::move(cells[1]), 0.75, 0.5, 900);
  cells[0].plateau = Plateau{.left = 300};
  cells[1].plateau = Plateau{};
  // A cell without slices in the same tables.
  cells.push_back(trained(training(42, "", "\"linear\""), 0.125));
  const std::vector<Table> tables = gather_tables(cells);
  const Table& raw = find(tables, "accuracy");
  ASSERT_EQ(raw.rows.size(), 7u);
  EXPECT_EQ(cell(raw, 0, "slice"), Value()) << "linear";
  EXPECT_EQ(text(raw, 1, "slice"), "mean");
  EXPECT_EQ(cell(raw, 1, "n_pairs"), Value());
  EXPECT_EQ(cell(raw, 1, "seq_len"), Value());
  EXPECT_EQ(cell(raw, 1, "queries"), Value(std::int64_t{20 * 32 * (55 + 47)}));
  EXPECT_EQ(text(raw, 3, "slice"), "64/4");
  EXPECT_EQ(cell(raw, 3, "n_pairs"), Value(std::int64_t{4}));
  EXPECT_EQ(cell(raw, 1, "plateau_step"), Value(std::int64_t{300})) << "of the whole training";
  EXPECT_EQ(cell(raw, 3, "plateau_step"), Value());

  const Table& summary = find(tables, "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 4u);
  EXPECT_EQ(cell(summary, 0, "slice"), Value());
  EXPECT_EQ(real(summary, 0, "accuracy_mean"), 0.125);
  EXPECT_EQ(text(summary, 1, "slice"), "mean");
  EXPECT_EQ(cell(summary, 1, "n_pairs"), Value());
  EXPECT_EQ(real(summary, 1, "accuracy_mean"), 0.625);
  EXPECT_EQ(real(summary, 1, "accuracy_sd"), 0.0);
  EXPECT_EQ(text(summary, 1, "left_plateau"), "1 of 2");
  EXPECT_EQ(real(summary, 1, "plateau_step_median"), 300);
  EXPECT_EQ(cell(summary, 2, "left_plateau"), Value()) << "slices share one training";
  EXPECT_EQ(cell(summary, 3, "plateau_step_median"), Value());
  // Equal weights: the variance of a mean of two, p (1 - p) (1 / q1 + 1 / q2) / 4.
  const double draws = 4.0 / (1.0 / (20 * 32 * 55) + 1.0 / (20 * 32 * 47));
  EXPECT_NEAR(real(summary, 1, "accuracy_high") - 0.625,
              12.70620473617471 * std::sqrt(fraction_variance(0.625, draws) / 2.0), 1e-12);
  EXPECT_EQ(real(summary, 2, "n_pairs"), 4);
  EXPECT_EQ(real(summary, 2, "seq_len"), 64);
  EXPECT_EQ(real(summary, 2, "accuracy_mean"), 0.875);
  EXPECT_EQ(text(summary, 3, "slice"), "64/8");
  EXPECT_EQ(real(summary, 3, "accuracy_mean"), 0.375);
  EXPECT_EQ(real(summary, 3, "loss_median"), 2.0);
  EXPECT_EQ(text(summary, 3, "note"), "reached train.stop_accuracy: 1 of 2 after 500 steps");
  EXPECT_EQ(text(summary, 2, "line"), "vla");
}

TEST(Summary, ASlicedCellThatIsNotOkHasTheRowOfItsMean) {
  std::vector<CellRecord> cells = records_of(kSlices);
  cells[0] = sliced(std::move(cells[0]), 1.0, 0.25, 900);
  cells[1].outcome = {.status = "diverged", .reason = "loss is nan at step 17"};
  add_row(cells[1], Training::table_with({.slice = true}), {{"steps", std::int64_t{17}}});
  const Table summary = find(gather_tables(cells), "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 3u);
  for (std::size_t row = 0; row < 3; ++row) {
    EXPECT_EQ(text(summary, row, "cells"), "1 of 2");
    EXPECT_EQ(text(summary, row, "not_ok"), "seed 2: diverged: loss is nan at step 17");
  }
  EXPECT_EQ(real(summary, 2, "accuracy_mean"), 0.25);
}

TEST(Summary, WithoutSlicesThereIsNoSuchColumn) {
  const std::vector<CellRecord> cells = {trained(training(1), 0.9)};
  for (const Table& table : gather_tables(cells)) EXPECT_FALSE(table.find_column("slice"));
}

}  // namespace
}  // namespace vla_bench
