// The program end to end, as a user drives it: its subcommands, flags and exit codes.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "report/table.h"
#include "testing/program.h"
#include "testing/run_files.h"
#include "testing/source_dir.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

using testing::operator+;
using testing::Arguments;
using testing::find_files;
using testing::first_line;
using testing::golden_dir;
using testing::Outcome;
using testing::Program;
using testing::run_program;
using testing::slurp;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

TEST_F(Program, HelpOfEverySubcommandHasAnExample) {
  for (const char* command : {"run", "plan", "status", "report", "claims", "merge", "pack",
                              "verify", "sample", "schema", "info"}) {
    const Outcome help = run_program({command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_NE(help.out.find("Example: vla-bench " + std::string(command)), std::string::npos);
  }
  EXPECT_EQ(run_program({"--version"}).exit_code, 0);
}

TEST_F(Program, BadInputExitsWithTwoAndNamesTheFault) {
  const std::string plain = write_training();
  std::string truncated = slurp(golden_dir() / "mixer_vla_a.safetensors");
  truncated.resize(truncated.size() / 2);
  const std::string half = write("half.safetensors", truncated);
  const std::string file = write("file", "");
  const auto run = [&](const std::string& setting) {
    return Arguments{"run", plain, "--out", at("never"), "--set", setting};
  };
  const struct {
    Arguments arguments;
    std::string message;
  } cases[] = {
      {{}, "subcommand"},
      {{"fly"}, "fly"},
      {{"run"}, "CONFIG"},
      {{"run", plain, "--what"}, "--what"},
      {{"run", at("missing.json")}, "missing.json"},
      {{"run", write("broken.json", "{\"model\": ")}, "broken.json"},
      {{"run", write("key.json", R"({"model": {"n_head": 4}})")}, "n_heads"},
      {run("model.n_head=4"), "n_heads"},
      {run("model.d_h=\"wide\""), "d_h"},
      {run("model.d_h=0"), "d_h"},
      {run("model.n_heads=0"), "n_heads"},
      {run("train.steps=0"), "steps"},
      {run("sweep={\"task.n_pairs\":[16]}"), "n_pairs"},  // 16 keys of the 15 tokens
      {run("seeds=[]"), "seeds"},
      {{"run", plain, "--threads", "-1"}, "--threads: expected an integer from 0 to 4096"},
      {{"run", plain, "--threads", "4097"}, "--threads"},
      {{"run", plain, "--seed", "99999999999999999999"},
       "--seed: expected an integer from 0 to 9223372036854775807"},
      {{"run", plain, "--seed", "9223372036854775808"}, "--seed"},
      {{"run", plain, "--seed", "-9223372036854775809"}, "--seed"},
      {{"run", plain, "--seed", "1.5"}, "--seed"},
      {{"run", plain, "--seed", "0x10"}, "--seed"},
      {{"run", plain, "--seed", ""}, "--seed"},
      {{"verify", plain, "--threads", "18446744073709551617"}, "--threads"},
      {{"run", plain, "--jobs", "-1"}, "--jobs"},
      {{"run", plain, "--jobs", "two"}, "--jobs"},
      {{"run", write("latency.json", R"({"experiment": "latency"})"), "--device", "cpu", "--jobs",
        "2", "--out", at("never")},
       "--jobs: latency is timed by one worker a device: at most 1 here, got 2"},
      {run("precision=tf32") + Arguments{"--device", "cpu"},
       "/precision: the cpu computes in float32 only, got tf32"},
      {run("precision=float16"), "precision"},
      {run("sweep.precision=[\"float32\",\"bf16\"]") + Arguments{"--device", "cpu"},
       "/precision: the cpu computes in float32 only, got bf16"},
      {{"run", plain, "--device", "abacus"}, "abacus"},
      {{"run", plain, "--quiet", "--verbose"}, "--quiet and --verbose"},
      {{"run", plain, "--shard", "3/3"}, "--shard"},
      {{"run", plain, "--shard", "one"}, "--shard"},
      {{"run", plain, "--out", file}, file},
      {{"run", plain, "--out", file + "/below"}, file},
      {{"run", plain, "--out", "/proc/nowhere"}, "/proc/nowhere"},
      {{"verify", half}, "half.safetensors"},
      {{"verify", at("missing.safetensors")}, "missing.safetensors"},
      {{"verify", plain}, "train.json"},
      {{"report", folder_.path().string()}, folder_.path().string()},
      {{"report", at("nowhere")}, "nowhere"},
      {{"sample", plain, "--batch", "0"}, "--batch: expected an integer from 1 to 1048576"},
      {{"sample", plain, "--batch", "99999999999999999999"}, "--batch"},
      {{"sample", write("recall.json", R"({"experiment": "recall"})")}, "recall"},
  };
  for (const auto& [arguments, message] : cases) {
    const Outcome outcome = run_program(arguments);
    std::string shown;
    for (const std::string& argument : arguments) shown += argument + " ";
    EXPECT_EQ(outcome.exit_code, 2) << shown << outcome.err;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << shown << outcome.err;
    EXPECT_EQ(outcome.out, "") << shown;
  }
  EXPECT_FALSE(fs::exists(at("never")));
}

TEST_F(Program, VerifyExitsWithOneOverTheTolerance) {
  const std::string golden = (golden_dir() / "mixer_vla_hp.safetensors").string();
  const Outcome passed = run_program({"verify", golden});
  EXPECT_EQ(passed.exit_code, 0) << passed.err;
  for (const char* kind : {"| y ", "| dx ", "| grad.* ", "| S_norm ", "| A_norm ", "reference"}) {
    EXPECT_NE(passed.out.find(kind), std::string::npos) << kind << "\n" << passed.out;
  }
  EXPECT_EQ(run_program({"verify", golden, "--dtype", "float32"}).exit_code, 0);
  EXPECT_EQ(run_program({"verify", golden, "--dtype", "float32", "--tolerance", "1e-12"}).exit_code,
            1);
}

TEST_F(Program, DryRunPrintsTheCellsAndWritesNothing) {
  const Outcome plan = run_program({"run", write_training(), "--dry-run", "--out", at("runs")});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_EQ(std::count(plan.out.begin(), plan.out.end(), '\n'), 2 + 6) << plan.out;
  EXPECT_FALSE(fs::exists(at("runs")));
}

TEST_F(Program, FinishedCellsAreSkippedUnlessForced) {
  const Arguments command = {"run", write_training(), "--out", at("runs")};
  ASSERT_EQ(run_program(command).exit_code, 0);
  const auto tables = find_files(at("runs"), "record.json");
  ASSERT_EQ(tables.size(), 6u);
  const auto written = fs::last_write_time(tables[0]);
  const Outcome again = run_program(command);
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_NE(again.err.find("6 cells were finished already"), std::string::npos) << again.err;
  EXPECT_NE(again.out.find("## accuracy"), std::string::npos);
  EXPECT_EQ(fs::last_write_time(tables[0]), written);
  EXPECT_EQ(run_program(command + Arguments{"--force"}).exit_code, 0);
  EXPECT_NE(fs::last_write_time(tables[0]), written);
}

// --force begins at step 0: with the finished checkpoint nothing would be left to train.
TEST_F(Program, ForceTrainsAnew) {
  const Arguments command = {"run",   write_training(), "--out", at("runs"),
                             "--set", "task.n_pairs=2", "--set", R"(mixers=["linear"])"};
  ASSERT_EQ(run_program(command).exit_code, 0);
  const auto results = timeless(at("runs"), "accuracy");
  const fs::path path = find_files(at("runs"), "checkpoint.safetensors").at(0);
  const TensorFile trained = TensorFile::read(path);
  TensorFile other = trained;
  for (const std::string& name : trained.names()) {
    std::vector<float> values = trained.values<float>(name);
    for (float& value : values) value = -3 * value;
    other.add(name, trained.at(name).shape, values.data());
  }
  other.write(path);
  ASSERT_EQ(run_program(command + Arguments{"--force"}).exit_code, 0);
  EXPECT_EQ(timeless(at("runs"), "accuracy"), results);
  const TensorFile again = TensorFile::read(path);
  for (const std::string& name : trained.names()) {
    EXPECT_EQ(again.at(name).data, trained.at(name).data) << name;
  }
}

TEST_F(Program, ShardsTogetherAreTheWhole) {
  const std::string config = write_training();
  ASSERT_EQ(run_program({"run", config, "--out", at("whole")}).exit_code, 0);
  for (const char* shard : {"0/3", "1/3", "2/3"}) {
    ASSERT_EQ(run_program({"run", config, "--out", at("parts"), "--shard", shard}).exit_code, 0);
  }
  EXPECT_EQ(timeless(at("parts"), "accuracy"), timeless(at("whole"), "accuracy"));
}

TEST_F(Program, TwoProcessesMayShareOneFolder) {
  const Arguments command = {"run", write_training(), "--out", at("shared")};
  testing::Process first(command), second(command);
  const Outcome a = first.wait(), b = second.wait();
  EXPECT_EQ(a.exit_code, 0) << a.err;
  EXPECT_EQ(b.exit_code, 0) << b.err;
  EXPECT_EQ(timeless(at("shared"), "accuracy").size(), 6u);
}

TEST_F(Program, ThreadsDoNotChangeAnyResult) {
  const std::string config = write_training();
  for (const char* threads : {"1", "2"}) {
    ASSERT_EQ(run_program({"run", config, "--out", at(threads), "--threads", threads}).exit_code,
              0);
  }
  EXPECT_EQ(timeless(at("1"), "accuracy"), timeless(at("2"), "accuracy"));
}

TEST_F(Program, JobsDoNotChangeAnyResult) {
  const std::string config = write_training();
  for (const char* jobs : {"1", "2"}) {
    const Outcome run =
        run_program({"run", config, "--out", at(jobs), "--jobs", jobs, "--threads", "3"});
    ASSERT_EQ(run.exit_code, 0) << run.err;
  }
  EXPECT_EQ(timeless(at("1"), "accuracy"), timeless(at("2"), "accuracy"));
  const auto one = find_files(at("1"), "checkpoint.safetensors");
  const auto two = find_files(at("2"), "checkpoint.safetensors");
  ASSERT_EQ(one.size(), 6u);
  ASSERT_EQ(two.size(), 6u);
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].parent_path().filename(), two[i].parent_path().filename());
    EXPECT_EQ(slurp(one[i]), slurp(two[i])) << two[i];
  }
  const auto cells_of = [&](const std::string& runs) { return testing::sealed_cells(at(runs)); };
  const auto single = cells_of("1"), beside = cells_of("2");
  ASSERT_EQ(single.size(), 6u);
  for (auto a = single.begin(), b = beside.begin(); a != single.end(); ++a, ++b) {
    EXPECT_EQ(comparable_rows(a->second), comparable_rows(b->second));
    EXPECT_EQ(to_csv(a->second.history), to_csv(b->second.history));
    EXPECT_EQ(b->second.provenance.fact("jobs"), "2");
    EXPECT_EQ(b->second.provenance.fact("threads"), "1") << "three threads for two workers";
    EXPECT_EQ(a->second.provenance.fact("jobs"), "1");
    EXPECT_EQ(a->second.provenance.fact("threads"), "3");
  }
}

TEST_F(Program, InALogShortCellsAreCountedAndFailedOnesNamed) {
  const std::string config = write_training();
  const Arguments command = {"run", config, "--out", at("runs"), "--jobs", "3"};
  const Outcome run = run_program(command);
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.err.find("6/6 cells done, 0 left"), std::string::npos) << run.err;
  EXPECT_EQ(run.err.find("cell 1/6"), std::string::npos) << "a line a cell: " << run.err;
  EXPECT_NE(run_program(command).err.find("6 cells were finished already"), std::string::npos);
  // Room for config and provenance, not for a checkpoint: every cell fails, none stops the others.
  const Outcome full = run_program(command + Arguments{"--force"}, {.file_size = 6000});
  EXPECT_EQ(full.exit_code, 1) << full.err;
  EXPECT_NE(full.err.find("6 of 6 cells failed"), std::string::npos) << full.err;
  for (const char* title : {"linear n_pairs=2", "vla n_pairs=4"}) {
    const std::size_t named = full.err.find(title);
    ASSERT_NE(named, std::string::npos) << full.err;
    EXPECT_EQ(full.err.find(title, named + 1), std::string::npos) << "twice: " << full.err;
  }
}

TEST_F(Program, SeedReplacesTheSeeds) {
  const std::string config = write_training();
  ASSERT_EQ(run_program({"run", config, "--out", at("runs"), "--seed", "3"}).exit_code, 0);
  const Table rows = testing::sealed_cells(at("runs")).begin()->second.tables.at(0);
  EXPECT_EQ(std::get<std::int64_t>(rows.rows[0][rows.column("seed")]), 3);
}

TEST_F(Program, TheLargestSeedIsItself) {
  const Outcome plan =
      run_program({"run", write_training(), "--dry-run", "--seed", "9223372036854775807"});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_NE(plan.out.find("seed=9223372036854775807"), std::string::npos) << plan.out;
}

TEST_F(Program, DivergedTrainingsAreReportedAndTheSweepGoesOn) {
  const Arguments command = {"run",   write_training(),     "--out", at("runs"),
                             "--set", "train.lr=1e30",      "--set", "train.steps=20",
                             "--set", "train.clip_norm=1e9"};
  const Outcome run = run_program(command);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(find_files(at("runs"), "record.json").size(), 6u);
  EXPECT_NE(run.out.find("diverged"), std::string::npos) << run.out;
}

TEST_F(Program, SummariesArePrintedHoweverLongTheyAre) {
  std::vector<int> pairs(90);
  std::iota(pairs.begin(), pairs.end(), 1);
  const std::string config =
      write("recall.json", fmt::format(R"({{"experiment": "recall", "mixers": ["linear"],
        "model": {{"d_h": 2}}, "recall": {{"trials": 1, "codebook": 2}},
        "sweep": {{"task.n_pairs": [{}]}}}})",
                                       fmt::join(pairs, ", ")));
  const Outcome run = run_program({"run", config, "--out", at("runs")});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out.find("## recall\n"), std::string::npos);
  EXPECT_NE(run.err.find("recall: 90 rows, not printed"), std::string::npos) << run.err;
  EXPECT_NE(run.out.find("## recall_summary\n"), std::string::npos);
  EXPECT_EQ(std::count(run.out.begin(), run.out.end(), '\n'), 2 + 2 + 90 + 1);
}

TEST_F(Program, SchemaAndInfoAreJson) {
  EXPECT_TRUE(Json::parse(run_program({"schema"}).out).contains("properties"));
  const Json info = Json::parse(run_program({"info", "--json"}).out);
  EXPECT_EQ(info.at("devices")[0].at("device"), "cpu");
  const bool has_gpu = info.at("devices")[1].at("available");
  EXPECT_EQ(info.at("gpus").empty(), !has_gpu);
  const std::string text = run_program({"info"}).out;
  EXPECT_NE(text.find("device cuda"), std::string::npos);
  EXPECT_EQ(text.find("gpu 0") != std::string::npos, has_gpu);
  EXPECT_EQ(text.find("runs go to the cpu") != std::string::npos, !has_gpu) << text;
}

TEST_F(Program, SamplePrintsSequences) {
  const Outcome sample = run_program({"sample", write_training(), "--batch", "2"});
  EXPECT_EQ(sample.exit_code, 0) << sample.err;
  EXPECT_NE(sample.out, "");
}

TEST_F(Program, FullDisksAreAnError) {
  EXPECT_EQ(run_program({"schema"}, {.standard_output = "/dev/full"}).exit_code, 1);
  // Room for config and provenance, not for a checkpoint.
  const Outcome run =
      run_program({"run", write_training(), "--out", at("runs")}, {.file_size = 6000});
  EXPECT_EQ(run.exit_code, 1) << run.err;
  EXPECT_NE(run.err.find("File too large"), std::string::npos) << run.err;
  for (const auto& [path, record] : testing::sealed_cells(at("runs"))) {
    EXPECT_EQ(record.outcome.status, "failed") << path;
  }
  for (const auto& entry : fs::recursive_directory_iterator(at("runs"))) {
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace vla_bench
