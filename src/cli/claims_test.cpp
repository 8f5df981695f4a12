// vla-bench claims as a user runs it, from no run to a verdict.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "testing/source_dir.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

using testing::first_line;
using testing::Outcome;
using testing::run_program;
using testing::slurp;
using testing::TemporaryFolder;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

TEST(Claims, HaveAVerdictOnceTheirCellsAreFinished) {
  const TemporaryFolder folder;
  const fs::path experiment = folder.path() / "experiments" / "01_tiny";
  fs::create_directories(experiment);
  std::ofstream(experiment / "config.json")
      << R"({"experiment": "recall", "name": "01_tiny", "mixers": ["softmax"], "device": "cpu",
             "model": {"d_h": 16}, "task": {"n_pairs": 2}})";
  const auto expect = [&](const char* low) {
    std::ofstream(experiment / "expected.json")
        << R"({"id": "T1", "title": "softmax recalls", "question": "does it?",
               "published": {"value": "1.000", "source": "nowhere"},
               "configs": ["config.json"], "command": "vla-bench run config.json",
               "criteria": [{"what": "accuracy", "table": "recall_summary",
                             "column": "accuracy_mean", "where": {"label": "softmax"},
                             "accept": [)"
        << low << R"(, 1], "why": "exact"}]})";
  };
  expect("0.9");
  const std::string runs = (folder.path() / "runs").string();
  fs::create_directories(runs);
  const std::string experiments = (folder.path() / "experiments").string();
  const auto claims = [&](const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"claims", runs, "--experiments", experiments};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments);
  };

  const Outcome before = claims();
  EXPECT_EQ(before.exit_code, 1) << before.err;
  EXPECT_NE(before.out.find("no run"), std::string::npos) << before.out;
  EXPECT_NE(before.err.find("for a first verdict: vla-bench run"), std::string::npos) << before.err;

  ASSERT_EQ(run_program({"run", (experiment / "config.json").string(), "--out", runs}).exit_code,
            0);
  const Outcome after = claims({"--format", "json"});
  EXPECT_EQ(after.exit_code, 0) << after.err;
  const Json row = Json::parse(after.out)["ledger"][0];
  EXPECT_EQ(row["claim"], "T1");
  EXPECT_EQ(row["measured"], 1.0);
  EXPECT_EQ(row["verdict"], "reproduced");
  EXPECT_EQ(row["cells"], "1 of 1");
  EXPECT_EQ(row["finished"], "1 of 1");
  EXPECT_EQ(row["device"], "cpu");
  EXPECT_EQ(row["run"], runs + "/01_tiny");

  const fs::path out = folder.path() / "ledger";
  EXPECT_EQ(claims({"--out", out.string()}).exit_code, 0);
  EXPECT_EQ(Json::parse(slurp(out / "ledger.json"))[0], row);
  EXPECT_EQ(first_line(slurp(out / "criteria.csv")),
            "claim,part,what,measured,low,high,cells,accept_low,accept_high,met,not_ok,note,why");

  // Case 2: without a folder, what was run in results/runs decides, and nothing was.
  const fs::path here = fs::current_path();
  fs::current_path(folder.path());
  const Outcome nothing = run_program({"claims", "--experiments", experiments});
  fs::current_path(here);
  EXPECT_EQ(nothing.exit_code, 1) << nothing.err;
  EXPECT_NE(nothing.err.find("no finished cell in results/runs"), std::string::npos) << nothing.err;

  expect("\"0.9\"");
  const Outcome malformed = claims();
  EXPECT_EQ(malformed.exit_code, 2);
  EXPECT_NE(malformed.err.find("expected.json: /criteria/0/accept/0: expected a finite number"),
            std::string::npos)
      << malformed.err;
  EXPECT_EQ(run_program({"claims", (folder.path() / "nowhere").string()}).exit_code, 2);
}

/// Runs FOLDER/experiments/01_x/config.json and returns the ledger and its criteria.
Json claims_after_run(const fs::path& folder) {
  const std::string runs = (folder / "runs").string();
  const std::string config = (folder / "experiments/01_x/config.json").string();
  EXPECT_EQ(run_program({"run", config, "--out", runs}).exit_code, 0);
  const Outcome claims = run_program(
      {"claims", runs, "--experiments", (folder / "experiments").string(), "--format", "json"});
  EXPECT_EQ(claims.exit_code, 0) << claims.err;
  return Json::parse(claims.out);
}

// Case 1: five of six seeds diverge at this rate. What the last one measured decides nothing.
TEST(Claims, NoVerdictRestsOnSurvivors) {
  const TemporaryFolder folder;
  const fs::path experiment = folder.path() / "experiments" / "01_x";
  fs::create_directories(experiment);
  std::ofstream(experiment / "config.json")
      << R"({"experiment": "mqar", "name": "x", "mixers": ["vla"], "seeds": [1, 2, 3, 4, 5, 6],
             "device": "cpu", "model": {"n_heads": 2, "d_h": 8, "n_layers": 1, "d_ff": 16,
             "vocab_size": 16, "max_seq_len": 64}, "task": {"n_pairs": 2},
             "train": {"steps": 30, "batch": 4, "warmup": 1, "lr": 500},
             "eval": {"batches": 2, "batch": 4}})";
  std::ofstream(experiment / "expected.json")
      << R"({"id": "X1", "title": "VLA fails", "question": "q", "command": "c",
             "published": {"value": "0", "source": "s"}, "configs": ["config.json"],
             "criteria": [{"what": "mean", "why": "w", "table": "accuracy_summary",
                           "column": "accuracy_mean", "where": {"label": "vla"},
                           "accept": [0, 1]}]})";
  const Json tables = claims_after_run(folder.path());
  const Json& row = tables["ledger"][0];
  EXPECT_EQ(row["finished"], "6 of 6");
  EXPECT_EQ(row["cells"], "1 of 6");
  EXPECT_EQ(row["verdict"], "not reproduced");
  const std::string not_ok = row["not_ok"];
  EXPECT_NE(not_ok.find("vla (seed 1: diverged: "), std::string::npos) << not_ok;
  EXPECT_EQ(tables["criteria"][0]["not_ok"], row["not_ok"]);
}

// In two steps no model learns to recall 8 pairs.
TEST(Claims, MayRestOnThePlateau) {
  const TemporaryFolder folder;
  const fs::path experiment = folder.path() / "experiments" / "01_x";
  fs::create_directories(experiment);
  std::ofstream(experiment / "config.json")
      << R"({"experiment": "mqar", "name": "x", "mixers": ["vla"], "seeds": [1, 2],
             "device": "cpu", "model": {"n_heads": 2, "d_h": 8, "n_layers": 1, "d_ff": 16,
             "vocab_size": 16, "max_seq_len": 64}, "task": {"n_pairs": 8},
             "train": {"steps": 2, "batch": 4, "warmup": 1, "log_every": 1},
             "eval": {"batches": 1, "batch": 4}})";
  std::ofstream(experiment / "expected.json")
      << R"({"id": "X1", "title": "VLA stays on its plateau", "question": "q", "command": "c",
             "published": {"value": "0", "source": "s"}, "configs": ["config.json"],
             "criteria": [{"what": "cells", "why": "w", "table": "accuracy_summary",
                           "column": "left_plateau", "where": {"label": "vla"},
                           "equals": "0 of 2"},
                          {"what": "step", "why": "w", "table": "accuracy_summary",
                           "column": "plateau_step_median", "where": {"label": "vla"},
                           "accept": [null, 2]}]})";
  const Json criteria = claims_after_run(folder.path())["criteria"];
  EXPECT_EQ(criteria[0]["measured"], "0 of 2");
  EXPECT_EQ(criteria[0]["met"], "yes");
  EXPECT_EQ(criteria[1]["measured"], nullptr);
  EXPECT_EQ(criteria[1]["met"], "no");
  EXPECT_EQ(criteria[1]["note"], "the row holds no number");
}

}  // namespace
}  // namespace vla_bench
