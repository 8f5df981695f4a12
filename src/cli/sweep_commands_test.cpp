// plan, status and merge, as a user drives them.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "core/files.h"
#include "core/safetensors.h"
#include "report/record.h"
#include "runs/cell_folder.h"
#include "testing/program.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

using testing::operator+;
using testing::Arguments;
using testing::find_files;
using testing::Outcome;
using testing::run_program;
using testing::slurp;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

class Sweep : public testing::Program {
 protected:
  /// Six training cells of a few milliseconds each, named tiny.
  std::string config() const { return write_training(); }

  void run(const std::string& out, const Arguments& more = {}) const {
    const Outcome outcome = run_program(Arguments{"run", config(), "--out", at(out)} + more);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  /// The output of status --json for the only sweep in a folder.
  Json status(const std::string& out) const {
    const Outcome outcome = run_program({"status", at(out), "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const Json folders = Json::parse(outcome.out);
    EXPECT_EQ(folders.size(), 1u);
    return folders.at(0);
  }
  /// Folder of the first cell, in path order.
  fs::path first_cell(const std::string& out) const {
    return find_files(at(out), "record.json").at(0).parent_path();
  }
  /// The first cell's record with one value of its table changed, sealed again.
  void change_first(const std::string& out, const std::string& column, const Value& value) const {
    const CellFolder folder{first_cell(out)};
    CellRecord record = read_record(slurp(folder.record()), "x", ReadHistory::yes);
    record.tables[0].rows[0][record.tables[0].column(column)] = value;
    folder.seal(record);
  }
  /// Makes the files of a process that was killed in the middle of the first cell.
  CellFolder break_off_first(const std::string& out) const {
    const CellFolder folder{first_cell(out)};
    folder.begin(read_record(slurp(folder.record()), "x").config);
    fs::remove(folder.record());
    return folder;
  }
};

TEST_F(Sweep, ThePlanSaysWhatIsLeftAndHowItIsDealt) {
  const Arguments command = {"plan", config(), "--out", at("runs"), "--format", "csv"};
  const Outcome sweep = run_program(command + Arguments{"--table", "sweep"});
  ASSERT_EQ(sweep.exit_code, 0) << sweep.err;
  const std::string flop = sweep.out.substr(sweep.out.find(",6,0,6,") + 7);
  EXPECT_EQ(sweep.out, "device,cells,finished,to_do,flop_to_do,seconds_to_do,folder\ncpu,6,0,6," +
                           flop.substr(0, flop.find(',')) + ",," + at("runs") + "/tiny\n");
  EXPECT_FALSE(fs::exists(at("runs")));

  run("runs", {"--shard", "1/2"});
  const Json json = Json::parse(
      run_program({"plan", config(), "--out", at("runs"), "--tasks", "2", "--format", "json"}).out);
  EXPECT_EQ(json.at("sweep")[0].at("finished"), json.at("tasks")[1].at("cells"));
  EXPECT_GT(json.at("sweep")[0].at("seconds_to_do"), 0.0);
  EXPECT_EQ(json.at("tasks")[0].at("finished"), 0);
  EXPECT_EQ(json.at("tasks")[1].at("to_do"), 0);
  EXPECT_EQ(json.at("tasks")[1].at("flop_to_do"), 0.0);
  // Longest first: neither has all the long cells.
  for (const Json& task : json.at("tasks")) EXPECT_LT(task.at("over_mean"), 1.15);
}

TEST_F(Sweep, APlanForAGpuNeedsNone) {
  const Outcome plan = run_program({"plan", config(), "--device", "cuda", "--format", "csv"});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_NE(plan.out.find("\ncuda,6,"), std::string::npos) << plan.out;
}

TEST_F(Sweep, StatusCountsEveryStage) {
  run("runs", {"--shard", "0/2"});
  const Json half = status("runs");
  EXPECT_EQ(half.at("cells"), 6);
  EXPECT_EQ(half.at("done").get<int>() + half.at("to_do").get<int>(), 6);
  EXPECT_GT(half.at("percent"), 40.0);
  EXPECT_LT(half.at("percent"), 60.0);
  EXPECT_GT(half.at("seconds_left"), 0.0);

  run("runs");
  const Json whole = status("runs");
  EXPECT_EQ(whole.at("done"), 6);
  EXPECT_EQ(whole.at("percent"), 100.0);
  EXPECT_EQ(whole.at("seconds_left"), 0.0);

  // One cell as a killed process leaves it: no record, the checkpoint of its last step.
  const std::string record = slurp(CellFolder{first_cell("runs")}.record());
  const CellFolder cell = break_off_first("runs");
  const Json begun = status("runs");
  EXPECT_EQ(begun.at("begun"), 1);
  EXPECT_EQ(begun.at("begun_cells")[0].at("hash"), cell.path.filename().string());
  EXPECT_EQ(begun.at("begun_cells")[0].at("step"), 4);
  EXPECT_GE(begun.at("begun_cells")[0].at("checkpoint_age_s"), 0.0);
  fs::remove(cell.checkpoint());
  EXPECT_EQ(status("runs").at("begun_cells")[0].at("step"), Json());
  EXPECT_NE(run_program({"status", at("runs")}).out.find("none yet"), std::string::npos);

  // The same cell after a failure, and tried again since.
  CellRecord failed = read_record(record, "x");
  failed.outcome = {.status = "failed", .reason = "out of memory"};
  cell.seal(failed);
  EXPECT_EQ(status("runs").at("failed"), 1);
  EXPECT_EQ(status("runs").at("failed_cells")[0].at("reason"), "out of memory");
  EXPECT_NE(run_program({"status", at("runs")}).out.find("out of memory"), std::string::npos);
  cell.begin(failed.config);
  EXPECT_EQ(status("runs").at("begun"), 1);

  // A record that was cut: named, and the exit code says so.
  write_file_atomically(cell.record(), record.substr(0, record.size() / 2));
  const Outcome damaged = run_program({"status", at("runs"), "--json"});
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_NE(damaged.err.find(cell.path.string()), std::string::npos) << damaged.err;
  EXPECT_EQ(Json::parse(damaged.out)[0].at("damaged"), 1);
  EXPECT_EQ(Json::parse(damaged.out)[0].at("done"), 5);
}

// Cases 5 and 15: the next run repeats the cell, and says why.
TEST_F(Sweep, ADamagedCellIsDoneAgain) {
  run("runs");
  const CellFolder cell{first_cell("runs")};
  const std::string whole = comparable_rows(read_record(slurp(cell.record()), "x"));
  write_file_atomically(cell.record(), "");
  const Outcome again = run_program({"run", config(), "--out", at("runs")});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_NE(again.err.find(cell.path.string()), std::string::npos) << again.err;
  EXPECT_NE(again.err.find("5 cells were finished already"), std::string::npos) << again.err;
  EXPECT_EQ(comparable_rows(read_record(slurp(cell.record()), "x")), whole);
}

// A process that is killed between the record and the removal of begun.json has finished the cell.
TEST_F(Sweep, WhatAKillLeftBesideARecordIsTidied) {
  run("runs");
  const CellFolder cell{first_cell("runs")};
  const std::string record = slurp(cell.record());
  write_file_atomically(cell.begun(), "{}");
  EXPECT_EQ(status("runs").at("done"), 6);
  run("runs");
  EXPECT_FALSE(fs::exists(cell.begun()));
  EXPECT_EQ(slurp(cell.record()), record);
}

TEST_F(Sweep, APackIsReadLikeTheFolderItWasMadeFrom) {
  run("runs");
  const std::string pack = at("runs/tiny.jsonl");
  ASSERT_EQ(run_program({"pack", at("runs/tiny"), "--out", pack}).exit_code, 0);
  const std::string packed = slurp(pack);
  ASSERT_EQ(run_program({"pack", at("runs/tiny"), pack, "--out", pack}).exit_code, 0);
  EXPECT_EQ(slurp(pack), packed) << "packing again changes no byte";
  const Arguments report = {"report", at("runs"), "--format", "csv", "--table", "accuracy"};
  const std::string tables = run_program(report).out;
  fs::remove_all(at("runs/tiny"));
  EXPECT_EQ(run_program(report).out, tables);
  EXPECT_EQ(status("runs").at("done"), 6);
  const Outcome again = run_program({"run", config(), "--out", at("runs")});
  EXPECT_NE(again.err.find("6 cells were finished already"), std::string::npos) << again.err;
  ASSERT_EQ(run_program({"merge", at("runs"), "--out", at("all")}).exit_code, 0);
  EXPECT_EQ(find_files(at("all"), "record.json").size(), 6u);
  EXPECT_EQ(status("all").at("done"), 6);

  // An edited line: that cell is repeated, the others are kept.
  std::string edited = packed;
  edited[edited.size() - 100] ^= 1;
  write_file_atomically(pack, edited);
  EXPECT_EQ(run_program({"report", at("runs")}).exit_code, 1);
  const std::string experiments = (testing::source_dir() / "experiments").string();
  EXPECT_EQ(run_program({"claims", at("runs"), "--experiments", experiments}).exit_code, 1);
  const Outcome repaired = run_program({"run", config(), "--out", at("runs")});
  EXPECT_EQ(repaired.exit_code, 0) << repaired.err;
  EXPECT_NE(repaired.err.find("5 cells were finished already"), std::string::npos) << repaired.err;
}

TEST_F(Sweep, PackRefusesSeveralRunsAndWhatIsNoRun) {
  run("a");
  run("b", {"--set", "name=other"});
  EXPECT_EQ(run_program({"pack", at("a"), at("b"), "--out", at("x.jsonl")}).exit_code, 2);
  EXPECT_EQ(run_program({"pack", at("a"), "--out", at("x.json")}).exit_code, 2);
  EXPECT_EQ(run_program({"pack", at("nowhere"), "--out", at("x.jsonl")}).exit_code, 2);
  change_first("b", "loss", 0.25);
  EXPECT_EQ(run_program({"pack", at("b"), "--out", at("x.jsonl")}).exit_code, 0);
}

TEST_F(Sweep, TheRunThatCompletesTheConfigWritesItsTables) {
  run("runs", {"--shard", "0/2"});
  EXPECT_FALSE(fs::exists(at("runs/tiny/tables")));
  run("runs", {"--shard", "1/2"});
  EXPECT_TRUE(fs::exists(at("runs/tiny/tables/accuracy_summary.csv")));
  EXPECT_EQ(slurp(at("runs/tiny/tables/accuracy.csv")),
            run_program({"report", at("runs"), "--format", "csv", "--table", "accuracy"}).out);
}

TEST_F(Sweep, AReportInTheMiddleOfASweepIsNoError) {
  run("runs", {"--set", "task.n_pairs=2", "--set", R"(mixers=["vla"])"});
  break_off_first("runs");
  EXPECT_EQ(run_program({"report", at("runs")}).exit_code, 0);
  run("runs");
  break_off_first("runs");
  EXPECT_EQ(run_program({"report", at("runs"), "--out", at("report")}).exit_code, 0);
}

TEST_F(Sweep, APartThatIsRunAgainDoesNotHideTheRest) {
  run("runs", {"--shard", "0/2"});
  run("runs", {"--set", "task.n_pairs=2"});
  EXPECT_EQ(status("runs").at("cells"), 6);
  // Another sweep under the same name: what is done of the first still counts.
  run("runs", {"--seed", "8"});
  const Json both = status("runs");
  EXPECT_GT(both.at("cells"), 6);
  EXPECT_EQ(both.at("to_do"), 0);
}

TEST_F(Sweep, FoldersWithoutANoteOrWithAnUnreadableOneAreCounted) {
  run("runs");
  write_file_atomically(fs::path(at("runs")) / "tiny" / "sweep.json", "{\"no\": \"key\"}");
  const Outcome unreadable = run_program({"status", at("runs"), "--json"});
  EXPECT_EQ(unreadable.exit_code, 1);
  EXPECT_NE(unreadable.err.find("sweep.json"), std::string::npos) << unreadable.err;
  EXPECT_EQ(Json::parse(unreadable.out)[0].at("done"), 6);
  fs::remove(fs::path(at("runs")) / "tiny" / "sweep.json");
  EXPECT_EQ(status("runs").at("done"), 6);
  EXPECT_EQ(run_program({"status", at("missing")}).exit_code, 2);
  fs::create_directory(at("empty"));
  EXPECT_EQ(run_program({"status", at("empty")}).exit_code, 2);
}

TEST_F(Sweep, WatchingEndsWithTheSweepOrWithASignal) {
  run("runs");
  const Outcome over = run_program({"status", at("runs"), "--watch", "--json"});
  EXPECT_EQ(over.exit_code, 0) << over.err;
  EXPECT_EQ(Json::parse(over.out)[0].at("done"), 6);
  break_off_first("runs");
  testing::Process watching({"status", at("runs"), "--watch"});
  watching.await_handler(SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // between two looks
  watching.send(SIGTERM);
  EXPECT_EQ(watching.wait().exit_code, 75);
}

TEST_F(Sweep, MergedPartsAreTheWhole) {
  run("whole");
  run("a", {"--shard", "0/2"});
  run("b", {"--shard", "1/2"});
  const Outcome merged = run_program({"merge", at("a"), at("b"), "--out", at("all")});
  ASSERT_EQ(merged.exit_code, 0) << merged.err;
  const auto expected = find_files(at("whole"), "checkpoint.safetensors");
  const auto actual = find_files(at("all"), "checkpoint.safetensors");
  ASSERT_EQ(actual.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(actual[i].lexically_relative(at("all")), expected[i].lexically_relative(at("whole")));
    EXPECT_EQ(slurp(actual[i]), slurp(expected[i]));
  }
  EXPECT_EQ(find_files(at("all"), "record.json").size(), 6u);
  EXPECT_EQ(status("all").at("percent"), 100.0);
  // Merged again into a folder that has everything: nothing is copied.
  const auto written = fs::last_write_time(actual[0]);
  ASSERT_EQ(run_program({"merge", at("a"), "--out", at("all")}).exit_code, 0);
  EXPECT_EQ(fs::last_write_time(actual[0]), written);
}

TEST_F(Sweep, CopiesThatAgreeKeepBothProvenances) {
  run("a");
  run("b");
  const auto first_record = [&](const std::string& out) {
    return read_record(slurp(CellFolder{first_cell(out)}.record()), "x");
  };
  CellRecord other =
      read_record(slurp(CellFolder{first_cell("b")}.record()), "x", ReadHistory::yes);
  other.provenance = Provenance(Provenance::Facts{{"processor", "another"}});
  CellFolder{first_cell("b")}.seal(other);
  ASSERT_EQ(run_program({"merge", at("a"), at("b"), "--out", at("all")}).exit_code, 0);
  EXPECT_EQ(first_record("all").provenance, first_record("a").provenance);
  ASSERT_EQ(first_record("all").others.size(), 1u);
  EXPECT_EQ(first_record("all").others[0], other.provenance);
  // The note goes along with the next merge.
  ASSERT_EQ(run_program({"merge", at("a"), at("all"), "--out", at("again")}).exit_code, 0);
  EXPECT_EQ(first_record("again").others, first_record("all").others);
}

TEST_F(Sweep, ConflictsAreRefusedByName) {
  run("a");
  run("b");
  change_first("b", "loss", 0.5);
  const Outcome merged = run_program({"merge", at("a"), at("b"), "--out", at("all")});
  EXPECT_EQ(merged.exit_code, 2);
  EXPECT_NE(merged.err.find(first_cell("a").string()), std::string::npos) << merged.err;
  EXPECT_NE(merged.err.find(first_cell("b").string()), std::string::npos) << merged.err;
  EXPECT_FALSE(fs::exists(at("all")));
  // Copies that are already in the folder count like any others.
  EXPECT_EQ(run_program({"merge", at("b"), "--out", at("a")}).exit_code, 2);
  // A report does not silently choose one of them either (case 10).
  const Outcome report = run_program({"report", at("a"), at("b"), "--format", "csv"});
  EXPECT_EQ(report.exit_code, 1);
  EXPECT_NE(report.err.find("differ"), std::string::npos) << report.err;
  EXPECT_EQ(std::count(report.out.begin(), report.out.end(), '\n') > 0, true);
}

TEST_F(Sweep, TheTimeATrainingTookIsNoDifference) {
  run("a");
  run("b");
  change_first("b", "train_seconds", 1e6);
  EXPECT_EQ(run_program({"merge", at("a"), at("b"), "--out", at("all")}).exit_code, 0);
}

TEST_F(Sweep, TheFurthestCopyIsKept) {
  run("a");
  run("b");
  run("done");
  const fs::path hash = first_cell("a").filename();
  // Unfinished in both, and further in b.
  const CellFolder in_a = break_off_first("a");
  const CellFolder in_b = break_off_first("b");
  ASSERT_EQ(in_a.path.filename(), hash);
  TensorFile checkpoint = TensorFile::read(in_a.checkpoint());
  checkpoint.metadata()["step"] = "3";
  checkpoint.write(in_a.checkpoint());
  ASSERT_EQ(run_program({"merge", at("a"), at("b"), "--out", at("all")}).exit_code, 0);
  const CellFolder merged{fs::path(at("all")) / "tiny" / hash};
  EXPECT_EQ(TensorFile::read(merged.checkpoint()).integer("step"), 4);
  EXPECT_EQ(status("all").at("begun"), 1);
  // A finished one is further than any.
  ASSERT_EQ(run_program({"merge", at("done"), "--out", at("all")}).exit_code, 0);
  EXPECT_EQ(status("all").at("done"), 6);
}

TEST_F(Sweep, MergeRefusesWhatItCannotRead) {
  fs::create_directory(at("empty"));
  for (const Arguments& arguments :
       {Arguments{"merge", at("missing"), "--out", at("all")},
        Arguments{"merge", at("empty"), "--out", at("all")}, Arguments{"merge", at("empty")}}) {
    EXPECT_EQ(run_program(arguments).exit_code, 2);
  }
  EXPECT_FALSE(fs::exists(at("all")));
}

}  // namespace
}  // namespace vla_bench
