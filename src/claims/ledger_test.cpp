#include "claims/ledger.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "config/read.h"
#include "experiments/list.h"
#include "report/grouping.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

constexpr const char* kConfig =
    R"({"name": "01_copy", "experiment": "copy", "mixers": ["vla"], "seeds": [1, 2]})";

/// An experiment folder with two cells per device, and cells as written by a run.
class Ledger : public ::testing::Test {
 protected:
  Ledger() {
    std::ofstream(folder_.path() / "config.json") << kConfig;
    claim_ = {.id = "C11",
              .title = "copies",
              .question = "does it copy?",
              .published = {.value = "1.000", .source = "notebook 07"},
              .configs = {"config.json"},
              .command = "vla-bench run config.json",
              .criteria = {accuracy(0.99)},
              .condition = {},
              .folder = folder_.path()};
  }

  static Criterion accuracy(double low) {
    return {.what = "accuracy",
            .of = {.table = "accuracy_summary",
                   .column = "accuracy_mean",
                   .where = {{{"label", {std::string("vla")}}}}},
            .over = {},
            .accept = {low, 1.0},
            .equals = {},
            .why = "sampling",
            .place = "x"};
  }

  /// Cell `index` (seed) of the config on a device, with this accuracy.
  static CellRecord cell(std::size_t index, Device device, double accuracy,
                         const std::string& run = "01_copy", const char* config = kConfig) {
    const CellConfig planned = expand_cells(parse_config(config, "x"), device).at(index);
    Table table(Training::table());
    std::vector<Value> row(table.columns.size());
    row[table.column("accuracy")] = accuracy;
    row[table.column("queries")] = std::int64_t{24000};
    row[table.column("status")] = std::string("ok");
    table.add(std::move(row));
    CellRecord cell{.config = planned.config, .hash = planned.hash};
    cell.provenance = Provenance({{"processor", "a CPU"}, {"cuda", "a GPU"}});
    cell.tables = {std::move(table)};
    cell.place = "runs/" + run + "/" + planned.hash;
    return cell;
  }

  Assessment assess_with(std::vector<CellRecord> cells) const {
    return assess(claim_, CellIndex(std::move(cells)));
  }

  testing::TemporaryFolder folder_;
  Claim claim_;
};

TEST_F(Ledger, WithoutARunThereIsNoVerdict) {
  const Assessment none = assess_with({});
  EXPECT_EQ(none.verdict, Verdict::no_run);
  EXPECT_EQ(none.cells, 2);
  EXPECT_EQ(none.finished, 0);
  EXPECT_EQ(none.device, "");
}

TEST_F(Ledger, PartOfTheSeedsIsNoRun) {
  const Assessment part = assess_with({cell(0, Device::cpu, 1.0)});
  EXPECT_EQ(part.verdict, Verdict::no_run);
  EXPECT_EQ(part.finished, 1);
  EXPECT_EQ(part.device, "cpu");
  EXPECT_EQ(part.criteria[0].note, "the run is not finished");
}

TEST_F(Ledger, AllCellsDecide) {
  const Assessment done = assess_with({cell(0, Device::cpu, 1.0), cell(1, Device::cpu, 0.996)});
  EXPECT_EQ(done.verdict, Verdict::reproduced);
  EXPECT_EQ(done.machines, std::vector<std::string>{"a CPU"});
  EXPECT_EQ(done.runs, std::vector<std::string>{"runs/01_copy"});
  EXPECT_DOUBLE_EQ(*number(done.criteria[0].measured.value), 0.998);
  EXPECT_EQ(done.criteria[0].measured.cells, "2 of 2");
}

// A diverged cell is finished, and the verdict is not based on the others.
TEST_F(Ledger, NamesTheCellsThatAreLost) {
  CellRecord lost = cell(1, Device::cpu, 0.0);
  lost.outcome = {.status = "diverged", .reason = "loss is nan at step 17"};
  const std::vector<Assessment> done = {assess_with({cell(0, Device::cpu, 1.0), lost})};
  EXPECT_EQ(done[0].verdict, Verdict::not_reproduced);
  for (const Table& table : {ledger_table(done), criteria_table(done)}) {
    EXPECT_EQ(table.rows[0][table.column("cells")], Value(std::string("1 of 2"))) << table.name;
    EXPECT_EQ(table.rows[0][table.column("not_ok")],
              Value(std::string("vla (seed 2: diverged: loss is nan at step 17)")));
  }
}

// The label of the run does not matter.
TEST_F(Ledger, ACellIsTheSameUnderAnotherLabel) {
  std::vector<CellRecord> cells = {cell(0, Device::cpu, 1.0), cell(1, Device::cpu, 1.0)};
  for (CellRecord& one : cells) one.config.mixers.front().label = "mine";
  EXPECT_EQ(assess_with(cells).verdict, Verdict::reproduced);
}

TEST_F(Ledger, CellsOfOtherSettingsDoNotCount) {
  const char* other =
      R"({"name": "01_copy", "experiment": "copy", "mixers": ["vla"], "seeds": [1, 2],
          "train": {"lr": 1e-3}})";
  const Assessment none = assess_with(
      {cell(0, Device::cpu, 1.0, "01_copy", other), cell(1, Device::cpu, 1.0, "01_copy", other)});
  EXPECT_EQ(none.finished, 0);
  EXPECT_EQ(none.verdict, Verdict::no_run);
}

TEST_F(Ledger, DevicesAreNotMixedAndTheGpuComesFirst) {
  const Assessment mixed = assess_with({cell(0, Device::cpu, 1.0), cell(1, Device::cuda, 1.0)});
  EXPECT_EQ(mixed.verdict, Verdict::no_run);
  EXPECT_EQ(mixed.finished, 1);

  const Assessment both = assess_with({cell(0, Device::cpu, 0.5), cell(1, Device::cpu, 0.5),
                                       cell(0, Device::cuda, 1.0), cell(1, Device::cuda, 1.0)});
  EXPECT_EQ(both.device, "cuda");
  EXPECT_EQ(both.machines, std::vector<std::string>{"a GPU"});
  EXPECT_EQ(both.verdict, Verdict::reproduced);

  const Assessment whole = assess_with(
      {cell(0, Device::cpu, 1.0), cell(1, Device::cpu, 1.0), cell(0, Device::cuda, 0.5)});
  EXPECT_EQ(whole.device, "cpu");
  EXPECT_EQ(whole.verdict, Verdict::reproduced);
}

TEST_F(Ledger, NamesThePackThatACellLiesIn) {
  CellRecord packed = cell(1, Device::cpu, 1.0);
  packed.place = "reference/01_copy.jsonl:3";
  const Assessment done = assess_with({cell(0, Device::cpu, 1.0), packed});
  EXPECT_EQ(done.runs, (std::vector<std::string>{"reference/01_copy.jsonl", "runs/01_copy"}));
}

TEST_F(Ledger, TablesHoldARowAClaimAndARowACriterion) {
  claim_.criteria.push_back(accuracy(0.999));
  claim_.condition = Condition{.text = "to two digits", .criteria = {accuracy(0.99)}};
  const std::vector<Assessment> assessments = {
      assess_with({cell(0, Device::cpu, 1.0), cell(1, Device::cpu, 0.996)}), assess_with({})};
  const Table ledger = ledger_table(assessments);
  ASSERT_EQ(ledger.rows.size(), 2u);
  const auto at = [&](std::size_t row, const char* column) {
    return ledger.rows[row][ledger.column(column)];
  };
  EXPECT_EQ(at(0, "claim"), Value(std::string("C11")));
  EXPECT_EQ(at(0, "published"), Value(std::string("1.000")));
  EXPECT_EQ(at(0, "verdict"), Value(std::string("not as stated")));
  EXPECT_EQ(at(0, "condition"), Value(std::string("to two digits")));
  EXPECT_EQ(at(0, "criteria_met"), Value(std::string("1 of 2")));
  EXPECT_EQ(at(0, "cells"), Value(std::string("2 of 2")));
  EXPECT_EQ(at(0, "finished"), Value(std::string("2 of 2")));
  EXPECT_EQ(at(0, "device"), Value(std::string("cpu")));
  EXPECT_EQ(at(0, "run"), Value(std::string("runs/01_copy")));
  // t(0.975, 1) = 12.706; the standard error of 1 and 0.996 is 0.002. No accuracy is above 1.
  EXPECT_NEAR(number(at(0, "low")).value(), 0.998 - 12.706 * 0.002, 1e-4);
  EXPECT_EQ(number(at(0, "high")), 1.0);
  EXPECT_EQ(at(1, "verdict"), Value(std::string("no run")));
  EXPECT_EQ(at(1, "condition"), Value(std::string()));
  EXPECT_EQ(at(1, "measured"), Value());

  const Table criteria = criteria_table(assessments);
  ASSERT_EQ(criteria.rows.size(), 6u);
  const std::size_t met = criteria.column("met");
  EXPECT_EQ(criteria.rows[0][met], Value(std::string("yes")));
  EXPECT_EQ(criteria.rows[0][criteria.column("accept_low")], Value(0.99));
  EXPECT_EQ(criteria.rows[1][met], Value(std::string("no")));
  EXPECT_EQ(criteria.rows[2][criteria.column("part")], Value(std::string("condition")));
  EXPECT_EQ(criteria.rows[5][met], Value(std::string("no run")));
}

}  // namespace
}  // namespace vla_bench
