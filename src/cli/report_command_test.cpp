// `vla-bench report`: its formats, the folders that it writes, and what summaries say.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "core/files.h"
#include "report/table.h"
#include "testing/program.h"
#include "testing/run_files.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

using testing::operator+;
using testing::Arguments;
using testing::find_files;
using testing::Outcome;
using testing::Program;
using testing::reported;
using testing::run_program;
using testing::slurp;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

using ReportCommand = Program;

TEST_F(ReportCommand, ReportsParseInEveryFormat) {
  ASSERT_EQ(run_program({"run", write_training(), "--out", at("runs")}).exit_code, 0);
  const Outcome json = run_program({"report", at("runs"), "--format", "json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const Json tables = Json::parse(json.out);
  ASSERT_EQ(tables.at("accuracy").size(), 6u);
  EXPECT_EQ(tables.at("accuracy")[0].at("mixer"), "linear");
  EXPECT_TRUE(tables.contains("accuracy_summary"));

  const Outcome csv = run_program({"report", at("runs"), "--format", "csv", "--table", "accuracy"});
  EXPECT_EQ(read_csv(write("accuracy.csv", csv.out), reported("accuracy")).rows.size(), 6u);

  // A part of one table, for scripts.
  const Arguments part = {"report", at("runs"), "--format", "csv", "--table", "accuracy"};
  EXPECT_EQ(run_program(part + Arguments{"--where", "mixer=vla", "--where", "n_pairs=3", "--column",
                                         "label", "--column", "n_pairs"})
                .out,
            "label,n_pairs\nvla,3\n");
  EXPECT_EQ(run_program(part + Arguments{"--where", "n_pairs=5", "--column", "label"}).out,
            "label\n");
  for (const Arguments& wrong : {Arguments{"--where", "pairs=3"}, Arguments{"--where", "n_pairs"},
                                 Arguments{"--column", "pairs"}, Arguments{"--table", "history"}}) {
    EXPECT_EQ(run_program(part + Arguments{"--where", "n_pairs=3"} + wrong).exit_code, 2);
  }

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

// A key that a record lacks has its default, so that records of earlier versions stay readable.
TEST_F(ReportCommand, ReportsReadRecordsWithoutLaterKeys) {
  ASSERT_EQ(run_program({"run", write_training(), "--out", at("runs")}).exit_code, 0);
  for (const fs::path& path : find_files(at("runs"), "record.json")) {
    const std::string line = slurp(path);
    const std::string key = R"("power_a":0.01,)";
    std::string body = "{" + std::string(open_line(line, "x"));
    ASSERT_NE(body.find(key), std::string::npos) << body;
    body.erase(body.find(key), key.size());
    write_file_atomically(path, seal_line(body));
  }
  const Outcome report = run_program({"report", at("runs"), "--out", at("report")});
  ASSERT_EQ(report.exit_code, 0) << report.err;
  const std::string history = slurp(at("report") + "/history.csv");
  EXPECT_NE(history.find("mqar,vla,vla,3,4,10,float32,7,"), std::string::npos) << history;
}

// Case 9: tables of other cells are removed.
TEST_F(ReportCommand, AReportReplacesAnEarlierOne) {
  ASSERT_EQ(run_program({"run", write_training(), "--out", at("a")}).exit_code, 0);
  const std::string recall = write("recall.json", R"({"experiment": "recall", "mixers": ["vla"],
      "model": {"d_h": 4}, "task": {"n_pairs": 2}, "recall": {"trials": 2, "codebook": 4}})");
  ASSERT_EQ(run_program({"run", recall, "--out", at("b")}).exit_code, 0);
  ASSERT_EQ(run_program({"report", at("a"), "--out", at("report")}).exit_code, 0);
  write("report/README.md", "mine");
  ASSERT_EQ(run_program({"report", at("b"), "--out", at("report")}).exit_code, 0);
  EXPECT_TRUE(fs::exists(at("report/recall.csv")));
  EXPECT_TRUE(fs::exists(at("report/README.md")));
  for (const char* file : {"accuracy.csv", "accuracy.md", "accuracy_summary.csv", "history.csv"}) {
    EXPECT_FALSE(fs::exists(at("report") + "/" + file)) << file;
  }
}

TEST_F(ReportCommand, TheConfigsOfAReportMakeItsCellsAgain) {
  ASSERT_EQ(run_program({"run", write_training(), "--out", at("runs")}).exit_code, 0);
  ASSERT_EQ(run_program({"report", at("runs"), "--out", at("report")}).exit_code, 0);
  const Json configs = Json::parse(slurp(at("report") + "/configs.json"));
  ASSERT_EQ(configs.size(), 1u) << configs.dump(2);
  const Outcome again = run_program(
      {"run", write("again.json", configs[0].dump()), "--out", at("runs"), "--device", "cpu"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_NE(again.err.find("6 cells were finished already"), std::string::npos) << again.err;
  EXPECT_EQ(find_files(at("runs"), "record.json").size(), 6u);
}

TEST_F(ReportCommand, AReportThatFailsLeavesNoFolder) {
  const std::string out = at("report");
  EXPECT_EQ(run_program({"report", at("nowhere"), "--out", out}).exit_code, 2);
  EXPECT_EQ(run_program({"report", folder_.path().string(), "--out", out}).exit_code, 2);
  ASSERT_EQ(run_program({"run", write_training(), "--out", at("runs")}).exit_code, 0);
  EXPECT_EQ(run_program({"report", at("runs"), "--out", out, "--table", "speed"}).exit_code, 2);
  EXPECT_FALSE(fs::exists(out));
}

// The raw state_norm and jacobian tables have no columns for a reason.
TEST_F(ReportCommand, ReasonsOfProbesReachTheirSummaries) {
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
    const auto cells = testing::sealed_cells(out);
    for (const auto& [path, record] : cells) {
      EXPECT_EQ(record.outcome.status, status);
      EXPECT_NE(record.outcome.reason.find(reason), std::string::npos);
    }
    EXPECT_EQ(cells.size(), 2u);
    const Outcome report = run_program({"report", out, "--format", "json"});
    ASSERT_EQ(report.exit_code, 0) << report.err;
    const Json tables = Json::parse(report.out);
    const Json& summary = tables.at(experiment + "_summary");
    ASSERT_EQ(summary.size(), 1u) << "one label";
    EXPECT_EQ(summary[0].at("cells"), "0 of 2");
    const auto not_ok = summary[0].at("not_ok").get<std::string>();
    EXPECT_NE(not_ok.find("seed 1: " + status), std::string::npos) << not_ok;
    EXPECT_NE(not_ok.find(reason), std::string::npos) << not_ok;
    EXPECT_EQ(tables.at(experiment).empty(), status == "skipped");
    for (const Json& row : tables.at(experiment)) {
      EXPECT_TRUE(row.at("t").is_number_integer());
      for (const char* column : {"s_norm", "sigma_max", "product_norm"}) {
        EXPECT_TRUE(!row.contains(column) || row.at(column).is_number()) << row;
      }
    }
  }
}

}  // namespace
}  // namespace vla_bench
