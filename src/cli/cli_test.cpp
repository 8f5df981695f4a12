// The program end to end, as a user drives it: every config at tiny size, its tables, its exit
// codes.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "cli/subprocess.h"
#include "core/files.h"
#include "report/table.h"

namespace vla_bench {
namespace {

using testing::Outcome;
using testing::run_program;
using testing::slurp;
using testing::TemporaryFolder;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

using Arguments = std::vector<std::string>;

// The columns that the documentation promises, letter by letter.
const std::map<std::string, std::string> kColumns = {
    {"accuracy",
     "experiment,label,mixer,n_pairs,d_h,n_heads,seq_len,layout,short_conv,seed,steps,accuracy,"
     "loss,train_seconds,device,status,reason"},
    {"recall", "label,mixer,d_h,n_pairs,trials,accuracy,ci95,status,reason"},
    {"state_norm", "label,mixer,seed,t,s_norm,a_norm"},
    {"jacobian", "label,seed,t,sigma_max,cosine,product_norm"},
    {"latency",
     "label,mixer,implementation,device,batch,n_heads,d_h,seq_len,pass,median_s,p10_s,p90_s,"
     "repeats,state_bytes,activation_bytes,status,reason"}};

std::string table_of(const std::string& experiment) {
  return experiment == "mqar" || experiment == "copy" ? "accuracy" : experiment;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

Arguments operator+(Arguments left, const Arguments& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

Arguments settings(const std::vector<std::string>& values) {
  Arguments arguments;
  for (const std::string& value : values) {
    arguments.push_back("--set");
    arguments.push_back(value);
  }
  return arguments;
}

/// The config's sweep with two values an axis.
std::string short_sweep(const Json& config) {
  Json sweep = config.value("sweep", Json::object());
  for (auto& axis : sweep) {
    if (axis.size() > 2) axis.erase(axis.begin() + 2, axis.end());
  }
  return sweep.dump();
}

/// Flags that make any config of the project run within a moment.
Arguments tiny(const Json& config) {
  std::vector<std::string> values = {
      "model.n_heads=2",  "model.n_layers=1",      "model.d_ff=8",          "train.steps=3",
      "train.warmup=1",   "train.batch=2",         "train.log_every=1",     "eval.batches=1",
      "eval.batch=2",     "recall.trials=2",       "recall.codebook=8",     "latency.batch=1",
      "latency.warmup=0", "latency.min_repeats=1", "latency.max_repeats=2", "threads=1"};
  const std::string experiment = config.value("experiment", "mqar");
  const Json sweep = config.value("sweep", Json::object());
  values.push_back("sweep=" + short_sweep(config));
  if (!sweep.contains("model.d_h")) values.push_back("model.d_h=4");
  if (!sweep.contains("task.n_pairs") && experiment == "mqar") values.push_back("task.n_pairs=2");
  if (experiment == "state_norm" || experiment == "jacobian") values.push_back("task.seq_len=30");
  if (config.value("seeds", Json::array()).size() > 2) values.push_back("seeds=[1,2]");
  return settings(values);
}

std::vector<fs::path> find_files(const fs::path& root, const std::string& name) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.path().filename() == name) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

class EveryConfig : public ::testing::TestWithParam<std::string> {};

std::vector<std::string> config_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(VLA_SOURCE_DIR "/configs")) {
    const std::string stem = entry.path().stem().string();
    if (entry.path().extension() == ".json" && stem != "schema") names.push_back(stem);
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST_P(EveryConfig, RunsAtTinySizeAndItsTablesParse) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "runs").string();
  const std::string path = std::string(VLA_SOURCE_DIR "/configs/") + GetParam() + ".json";
  const Json config = Json::parse(slurp(path), nullptr, true, true);
  const std::string table = table_of(config.value("experiment", "mqar"));
  const Schema& schema = *find_schema(table);

  const Outcome run = run_program(Arguments{"run", path, "--out", out} + tiny(config));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.out.find("## " + table), std::string::npos) << run.out;
  const auto tables = find_files(out, table + ".csv");
  ASSERT_FALSE(tables.empty());
  for (const fs::path& file : tables) {
    EXPECT_EQ(first_line(slurp(file)), kColumns.at(table));
    const Table rows = read_csv(file, schema);
    EXPECT_FALSE(rows.rows.empty()) << file;
    EXPECT_TRUE(fs::exists(file.parent_path() / "config.json"));
    EXPECT_TRUE(fs::exists(file.parent_path() / "provenance.json"));
    if (table != "accuracy") continue;
    EXPECT_EQ(first_line(slurp(file.parent_path() / "history.csv")),
              "step,loss,accuracy,learning_rate,gradient_norm");
    EXPECT_TRUE(fs::exists(file.parent_path() / "checkpoint.safetensors"));
    EXPECT_EQ(std::get<std::string>(rows.rows[0][rows.column("status")]), "ok");
  }

  const std::string gathered = (folder.path() / "report").string();
  const Outcome report = run_program({"report", out, "--out", gathered});
  ASSERT_EQ(report.exit_code, 0) << report.err;
  EXPECT_EQ(first_line(slurp(fs::path(gathered) / (table + ".csv"))), kColumns.at(table));
  EXPECT_TRUE(fs::exists(fs::path(gathered) / (table + ".md")));
  EXPECT_EQ(fs::exists(fs::path(gathered) / "history.csv"), table == "accuracy");
  EXPECT_GE(Json::parse(slurp(fs::path(gathered) / "provenance.json")).size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Configs, EveryConfig, ::testing::ValuesIn(config_names()),
                         [](const auto& name) { return name.param; });

/// A folder with a config file in it.
class Program : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) const {
    const fs::path path = folder_.path() / name;
    write_file_atomically(path, text);
    return path.string();
  }
  std::string at(const std::string& name) const { return (folder_.path() / name).string(); }

  /// Two mixers, three sizes: six training cells of a few milliseconds each.
  std::string write_training() const {
    return write("train.json", R"({"experiment": "mqar", "name": "tiny", "seeds": [7], "threads": 1,
        "mixers": ["linear", "vla"], "sweep": {"task.n_pairs": [2, 3, 4]},
        "model": {"n_heads": 2, "d_h": 4, "n_layers": 1, "d_ff": 8, "vocab_size": 16},
        "train": {"steps": 4, "batch": 3, "warmup": 1, "log_every": 1},
        "eval": {"batches": 2, "batch": 3}})");
  }

  /// Rows of a gathered table with the columns that hold times removed.
  std::vector<std::vector<Value>> timeless(const std::string& runs, const std::string& name) const {
    const std::string gathered = runs + "-report";
    const Outcome report = run_program({"report", runs, "--out", gathered});
    EXPECT_EQ(report.exit_code, 0) << report.err;
    Table table = read_csv(fs::path(gathered) / (name + ".csv"), *find_schema(name));
    const auto seconds = static_cast<std::ptrdiff_t>(table.column("train_seconds"));
    for (auto& row : table.rows) row.erase(row.begin() + seconds);
    return table.rows;
  }

  TemporaryFolder folder_;
};

TEST_F(Program, HelpOfEverySubcommandHasAnExample) {
  for (const char* command : {"run", "report", "verify", "sample", "schema", "info"}) {
    const Outcome help = run_program({command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_NE(help.out.find("Example: vla-bench " + std::string(command)), std::string::npos);
  }
  EXPECT_EQ(run_program({"--version"}).exit_code, 0);
}

TEST_F(Program, BadInputExitsWithTwoAndNamesTheFault) {
  const std::string plain = write_training();
  std::string truncated = slurp(VLA_SOURCE_DIR "/src/testing/golden/mixer_vla_a.safetensors");
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
  const std::string golden = VLA_SOURCE_DIR "/src/testing/golden/mixer_vla_hp.safetensors";
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
  const auto tables = find_files(at("runs"), "accuracy.csv");
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

TEST_F(Program, SeedReplacesTheSeeds) {
  const std::string config = write_training();
  ASSERT_EQ(run_program({"run", config, "--out", at("runs"), "--seed", "3"}).exit_code, 0);
  const fs::path table = find_files(at("runs"), "accuracy.csv").front();
  const Table rows = read_csv(table, *find_schema("accuracy"));
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
  EXPECT_EQ(find_files(at("runs"), "accuracy.csv").size(), 6u);
  EXPECT_NE(run.out.find("diverged"), std::string::npos) << run.out;
}

TEST_F(Program, ReportsParseInEveryFormat) {
  ASSERT_EQ(run_program({"run", write_training(), "--out", at("runs")}).exit_code, 0);
  const Outcome json = run_program({"report", at("runs"), "--format", "json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const Json tables = Json::parse(json.out);
  ASSERT_EQ(tables.at("accuracy").size(), 6u);
  EXPECT_EQ(tables.at("accuracy")[0].at("mixer"), "linear");
  EXPECT_TRUE(tables.contains("accuracy_summary"));

  const Outcome csv = run_program({"report", at("runs"), "--format", "csv", "--table", "accuracy"});
  EXPECT_EQ(first_line(csv.out), kColumns.at("accuracy"));
  EXPECT_EQ(read_csv(write("accuracy.csv", csv.out), *find_schema("accuracy")).rows.size(), 6u);

  const Outcome markdown = run_program({"report", at("runs")});
  std::istringstream lines(markdown.out);
  std::ptrdiff_t bars = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with("## ")) {
      bars = 0;
      continue;
    }
    const auto count = std::count(line.begin(), line.end(), '|');
    EXPECT_TRUE(bars == 0 || bars == count) << line;
    bars = count;
  }
  EXPECT_EQ(run_program({"report", at("runs"), "--table", "speed"}).exit_code, 2);
}

// A report needs little of a cell's config; what other versions wrote there stays readable.
TEST_F(Program, ReportsReadConfigsOfOtherVersions) {
  ASSERT_EQ(run_program({"run", write_training(), "--out", at("runs")}).exit_code, 0);
  for (const fs::path& path : find_files(at("runs"), "config.json")) {
    Json config = Json::parse(slurp(path));
    config["mixers"][0]["label"] = std::string(300, 'x');
    config["mixers"][0]["a_key_of_the_future"] = 1;
    config["task"].erase("layout");
    write_file_atomically(path, config.dump());
  }
  const Outcome report = run_program({"report", at("runs"), "--out", at("report")});
  ASSERT_EQ(report.exit_code, 0) << report.err;
  const std::string history = slurp(at("report") + "/history.csv");
  EXPECT_NE(history.find("mqar,vla,vla,3,4,10,7,4,"), std::string::npos) << history;
}

TEST_F(Program, AReportThatFailsLeavesNoFolder) {
  const std::string out = at("report");
  EXPECT_EQ(run_program({"report", at("nowhere"), "--out", out}).exit_code, 2);
  EXPECT_EQ(run_program({"report", folder_.path().string(), "--out", out}).exit_code, 2);
  ASSERT_EQ(run_program({"run", write_training(), "--out", at("runs")}).exit_code, 0);
  EXPECT_EQ(run_program({"report", at("runs"), "--out", out, "--table", "speed"}).exit_code, 2);
  write_file_atomically(find_files(at("runs"), "history.csv").back(), "step\n");
  EXPECT_EQ(run_program({"report", at("runs"), "--out", out}).exit_code, 2);
  EXPECT_FALSE(fs::exists(out));
}

// The raw state_norm and jacobian tables have no columns for a reason.
TEST_F(Program, ReasonsOfProbesReachTheirSummaries) {
  const struct {
    std::string experiment, mixer, status, reason;
  } cases[] = {
      {"jacobian", R"("softmax")", "skipped", "not of the form"},
      // Raw writes overshoot at this lambda_0: (1 - 1 / lambda_0)^t leaves the range of double.
      {"state_norm", R"({"mixer": "vla", "penalty": "frozen", "write": "raw", "lambda_0": 0.01})",
       "diverged", "state is not finite at t = "},
      {"jacobian", R"({"mixer": "vla", "penalty": "frozen", "write": "raw", "lambda_0": 0.01})",
       "diverged", "state is not finite at t = "},
  };
  for (const auto& [experiment, mixer, status, reason] : cases) {
    SCOPED_TRACE(experiment + " " + mixer);
    const std::string config =
        write("probe.json", fmt::format(R"({{"experiment": "{}", "mixers": [{}], "seeds": [1, 2],
                                      "model": {{"n_heads": 1, "d_h": 4}},
                                      "task": {{"seq_len": 300}},
                                      "probe": {{"source": "gaussian"}}}})",
                                        experiment, mixer));
    const std::string out = at(experiment + status);
    const Outcome run = run_program({"run", config, "--out", out});
    EXPECT_EQ(run.exit_code, 0) << run.err;
    EXPECT_NE(run.out.find(reason), std::string::npos) << run.out;
    for (const fs::path& path : find_files(out, "status.json")) {
      const Json outcome = Json::parse(slurp(path));
      EXPECT_EQ(outcome.at("status"), status);
      EXPECT_NE(outcome.at("reason").get<std::string>().find(reason), std::string::npos);
    }
    EXPECT_EQ(find_files(out, "status.json").size(), 2u);
    const Outcome report = run_program({"report", out, "--format", "json"});
    ASSERT_EQ(report.exit_code, 0) << report.err;
    const Json tables = Json::parse(report.out);
    const Json& summary = tables.at(experiment + "_summary");
    ASSERT_EQ(summary.size(), 1u) << "one label";
    EXPECT_EQ(summary[0].at("status"), status);
    EXPECT_NE(summary[0].at("reason").get<std::string>().find(reason), std::string::npos);
    EXPECT_EQ(tables.at(experiment).empty(), status == "skipped");
    for (const Json& row : tables.at(experiment)) {
      EXPECT_TRUE(row.at("t").is_number_integer());
      for (const char* column : {"s_norm", "sigma_max", "product_norm"}) {
        EXPECT_TRUE(!row.contains(column) || row.at(column).is_number()) << row;
      }
    }
  }
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
  EXPECT_NE(run_program({"info"}).out.find("device cuda"), std::string::npos);
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
  EXPECT_TRUE(find_files(at("runs"), "accuracy.csv").empty());
  for (const auto& entry : fs::recursive_directory_iterator(at("runs"))) {
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace vla_bench
