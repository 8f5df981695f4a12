// plan, status and merge, as a user drives them.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/subprocess.h"
#include "core/files.h"
#include "core/safetensors.h"
#include "report/run_directory.h"

namespace vla_bench {
namespace {

using testing::find_files;
using testing::Outcome;
using testing::run_program;
using testing::slurp;
using testing::TemporaryFolder;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

using Arguments = std::vector<std::string>;

Arguments operator+(Arguments left, const Arguments& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

class Sweep : public ::testing::Test {
 protected:
  /// Six training cells of a few milliseconds each, named tiny.
  std::string config() const {
    const fs::path path = folder_.path() / "config.json";
    write_file_atomically(path,
                          R"({"experiment": "mqar", "name": "tiny", "seeds": [7], "threads": 1,
        "mixers": ["linear", "vla"], "sweep": {"task.n_pairs": [2, 3, 4]},
        "model": {"n_heads": 2, "d_h": 4, "n_layers": 1, "d_ff": 8, "vocab_size": 16},
        "train": {"steps": 4, "batch": 3, "warmup": 1, "log_every": 1},
        "eval": {"batches": 2, "batch": 3}})");
    return path.string();
  }
  std::string at(const std::string& name) const { return (folder_.path() / name).string(); }

  void run(const std::string& out, const Arguments& more = {}) const {
    const Outcome outcome = run_program(Arguments{"run", config(), "--out", at(out)} + more);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  /// What status --json says of the only sweep in a folder.
  Json status(const std::string& out) const {
    const Outcome outcome = run_program({"status", at(out), "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const Json folders = Json::parse(outcome.out);
    EXPECT_EQ(folders.size(), 1u);
    return folders.at(0);
  }
  /// Folder of the first cell, in path order.
  fs::path first_cell(const std::string& out) const {
    return find_files(at(out), "config.json").at(0).parent_path();
  }

  TemporaryFolder folder_;
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

  // One cell as a killed process leaves it: no table, the checkpoint of its last step.
  fs::remove(first_cell("runs") / "accuracy.csv");
  const Json begun = status("runs");
  EXPECT_EQ(begun.at("begun"), 1);
  EXPECT_EQ(begun.at("begun_cells")[0].at("hash"), first_cell("runs").filename().string());
  EXPECT_EQ(begun.at("begun_cells")[0].at("step"), 4);
  EXPECT_GE(begun.at("begun_cells")[0].at("checkpoint_age_s"), 0.0);
  fs::remove(first_cell("runs") / "checkpoint.safetensors");
  EXPECT_EQ(status("runs").at("begun_cells")[0].at("step"), Json());
  EXPECT_NE(run_program({"status", at("runs")}).out.find("none yet"), std::string::npos);

  // The same cell after a failure, and tried again since.
  const RunDirectory failed{first_cell("runs")};
  failed.write_outcome({.status = "failed", .reason = "out of memory"});
  write_file_atomically(failed.folder / "accuracy.failed.csv", "");
  EXPECT_EQ(status("runs").at("failed"), 1);
  EXPECT_EQ(status("runs").at("failed_cells")[0].at("reason"), "out of memory");
  EXPECT_NE(run_program({"status", at("runs")}).out.find("out of memory"), std::string::npos);
  fs::last_write_time(failed.config(), fs::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(status("runs").at("begun"), 1);
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
  fs::remove(first_cell("runs") / "accuracy.csv");
  testing::Process watching({"status", at("runs"), "--watch"});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
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
  for (const char* file : {"provenance.json", "history.csv", "accuracy.csv", "accuracy.md"}) {
    EXPECT_EQ(find_files(at("all"), file).size(), 6u) << file;
  }
  EXPECT_EQ(status("all").at("percent"), 100.0);
  // Again, into a folder that has everything: nothing is copied.
  const auto written = fs::last_write_time(actual[0]);
  ASSERT_EQ(run_program({"merge", at("a"), "--out", at("all")}).exit_code, 0);
  EXPECT_EQ(fs::last_write_time(actual[0]), written);
  EXPECT_TRUE(find_files(at("all"), "provenance.others.json").empty());
}

TEST_F(Sweep, CopiesThatAgreeKeepBothProvenances) {
  run("a");
  run("b");
  const RunDirectory other{first_cell("b")};
  other.write_provenance("{\n  \"processor\": \"another\"\n}\n");
  ASSERT_EQ(run_program({"merge", at("a"), at("b"), "--out", at("all")}).exit_code, 0);
  EXPECT_EQ(slurp(first_cell("all") / "provenance.json"),
            slurp(first_cell("a") / "provenance.json"));
  const auto others = find_files(at("all"), "provenance.others.json");
  ASSERT_EQ(others.size(), 1u);
  EXPECT_EQ(Json::parse(slurp(others[0]))[0].at("processor"), "another");
  // The note goes along with the next merge.
  ASSERT_EQ(run_program({"merge", at("a"), at("all"), "--out", at("again")}).exit_code, 0);
  EXPECT_EQ(slurp(find_files(at("again"), "provenance.others.json").at(0)), slurp(others[0]));
}

TEST_F(Sweep, ConflictsAreRefusedByName) {
  run("a");
  run("b");
  const fs::path table = first_cell("b") / "accuracy.csv";
  Table rows = read_csv(table, accuracy_schema());
  rows.rows[0][rows.column("loss")] = 0.5;
  write_file_atomically(table, to_csv(rows));
  const Outcome merged = run_program({"merge", at("a"), at("b"), "--out", at("all")});
  EXPECT_EQ(merged.exit_code, 2);
  EXPECT_NE(merged.err.find(first_cell("a").string()), std::string::npos) << merged.err;
  EXPECT_NE(merged.err.find(first_cell("b").string()), std::string::npos) << merged.err;
  EXPECT_FALSE(fs::exists(at("all")));
  // What lies in the folder already counts like any other copy.
  EXPECT_EQ(run_program({"merge", at("b"), "--out", at("a")}).exit_code, 2);
  // The time a training took is no difference.
  rows = read_csv(first_cell("a") / "accuracy.csv", accuracy_schema());
  rows.rows[0][rows.column("train_seconds")] = 1e6;
  write_file_atomically(table, to_csv(rows));
  EXPECT_EQ(run_program({"merge", at("a"), at("b"), "--out", at("all")}).exit_code, 0);
}

TEST_F(Sweep, TheFurthestCopyIsKept) {
  run("a");
  run("b");
  run("done");
  const fs::path hash = first_cell("a").filename();
  // Unfinished in both, and further in b.
  for (const char* root : {"a", "b"})
    fs::remove(fs::path(at(root)) / "tiny" / hash / "accuracy.csv");
  TensorFile checkpoint = TensorFile::read(first_cell("a") / "checkpoint.safetensors");
  checkpoint.metadata()["step"] = "3";
  checkpoint.write(first_cell("a") / "checkpoint.safetensors");
  ASSERT_EQ(run_program({"merge", at("a"), at("b"), "--out", at("all")}).exit_code, 0);
  EXPECT_EQ(TensorFile::read(first_cell("all") / "checkpoint.safetensors").integer("step"), 4);
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
