#include "report/curve_summary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "testing/records.h"

namespace vla_bench {
namespace {

using testing::add_row;
using testing::real;
using testing::records_of;
using testing::text;

/// Trainings of two groups with three seeds each, without their histories.
std::vector<CellRecord> trainings() {
  std::vector<CellRecord> records = records_of(
      R"({"mixers": ["vla"], "task": {"n_pairs": 8}, "seeds": [1, 2, 3],
          "sweep": {"train.lr": [1e-3, 1e-2]}})");
  for (CellRecord& record : records) {
    add_row(record, Training::table(), {{"accuracy", 0.5}, {"loss", 0.1}});
  }
  return records;
}

Table history(std::initializer_list<std::pair<Index, double>> rows) {
  Table table(history_schema());
  for (const auto& [step, accuracy] : rows) {
    table.add({step, 1.0 - accuracy, accuracy, 1e-3, 1.0});
  }
  return table;
}

TEST(CurveSummary, AveragesSeedsAtEachStep) {
  std::vector<CellRecord> records = trainings();
  records[2].outcome = {.status = "diverged", .reason = "loss is nan at step 77"};
  CurveSummary summary(records);
  summary.add(records[0], history({{50, 0.2}, {100, 1.0}}));
  summary.add(records[1], history({{50, 0.4}, {100, 1.0}}));
  summary.add(records[2], history({{50, 0.6}}));
  const Table table = summary.table();
  ASSERT_EQ(table.rows.size(), 2u);
  EXPECT_EQ(text(table, 0, "line"), "vla lr=0.001");
  EXPECT_EQ(real(table, 0, "step"), 50);
  // A diverged seed does not count at all, not even before it diverged.
  EXPECT_EQ(text(table, 0, "cells"), "2 of 3");
  EXPECT_NEAR(real(table, 0, "accuracy_mean"), 0.3, 1e-15);
  EXPECT_NEAR(real(table, 0, "accuracy_sd"), std::sqrt(0.02), 1e-15);
  EXPECT_NEAR(real(table, 0, "loss_mean"), 0.7, 1e-15);
  EXPECT_EQ(text(table, 1, "cells"), "2 of 3");
  EXPECT_EQ(text(table, 1, "not_ok"), "seed 3: diverged: loss is nan at step 77");
  // Both solved it: 64 rows of 8 draws each.
  const double p = 513.0 / 514.0;
  EXPECT_NEAR(real(table, 1, "accuracy_low"),
              1.0 - 12.70620473617471 * std::sqrt(p * (1 - p) / 512.0 / 2.0), 1e-12);
  EXPECT_EQ(real(table, 1, "accuracy_high"), 1.0);
}

TEST(CurveSummary, DoesNotDependOnTheOrderOfCells) {
  std::vector<CellRecord> records = trainings();
  const auto table_of = [](const std::vector<CellRecord>& all) {
    CurveSummary summary(all);
    for (const CellRecord& record : all) {
      const double seed = static_cast<double>(record.config.seeds[0]);
      summary.add(record, history({{50, 0.1 * seed}, {60, 1.0 / (3.0 * seed)}}));
    }
    return to_csv(summary.table());
  };
  const std::string forwards = table_of(records);
  std::reverse(records.begin(), records.end());
  EXPECT_EQ(forwards, table_of(records));
}

TEST(CurveSummary, OtherExperimentsAreNoMatter) {
  std::vector<CellRecord> records = trainings();
  for (CellRecord& other : records_of(R"({"experiment": "recall", "mixers": ["vla"]})")) {
    records.push_back(other);
  }
  CurveSummary summary(records);
  summary.add(records[0], history({{50, 0.2}, {100, 0.3}}));
  summary.add(records.back(), history({{50, 0.2}}));
  const Table table = summary.table();
  ASSERT_EQ(table.rows.size(), 2u);
  EXPECT_EQ(text(table, 0, "cells"), "1 of 3");
  std::size_t rows = 0;
  summary.each_group([&](const Table& group) { rows += group.rows.size(); });
  EXPECT_EQ(rows, 2u);
}

// Two seeds shuffle their steps differently: rows of one step are averaged only in one size.
TEST(CurveSummary, SizesOfSegmentsAreNeverAveragedTogether) {
  std::vector<CellRecord> records = records_of(
      R"({"mixers": ["vla"], "seeds": [1, 2], "task": {"segment_order": "shuffled",
          "train_segments": [{"n_pairs": 2, "seq_len": 7, "steps": 8},
                             {"n_pairs": 4, "seq_len": 13, "steps": 8}]}})");
  for (CellRecord& record : records) {
    add_row(record, Training::table(), {{"accuracy", 0.5}, {"loss", 0.1}});
  }
  CurveSummary summary(records);
  std::map<Index, std::map<Index, int>> expected;  // step -> pairs -> seeds
  for (const CellRecord& record : records) {
    TrainSizes sizes(record.config);
    Table curve(history_schema());
    for (Index step = 1; step <= 16; ++step) {
      const Index n = sizes.configs()[sizes.at(step - 1)].task.n_pairs;
      ++expected[step][n];
      curve.add({step, 1.0, 0.1 * static_cast<double>(n), 1e-3, 1.0});
    }
    summary.add(record, curve);
  }
  const Table table = summary.table();
  std::size_t row = 0;
  std::size_t mixed = 0;
  for (const auto& [step, pairs] : expected) {
    if (pairs.size() == 2) ++mixed;
    for (const auto& [n, seeds] : pairs) {
      ASSERT_LT(row, table.rows.size());
      EXPECT_EQ(real(table, row, "step"), static_cast<double>(step));
      EXPECT_EQ(text(table, row, "cells"), seeds == 1 ? "1 of 2" : "2 of 2");
      EXPECT_NEAR(real(table, row, "accuracy_mean"), 0.1 * real(table, row, "n_pairs"), 1e-15);
      ++row;
    }
  }
  EXPECT_EQ(row, table.rows.size());
  EXPECT_GT(mixed, 0u) << "the seeds' orders differ";
}

}  // namespace
}  // namespace vla_bench
