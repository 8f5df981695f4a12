// A sweep that is killed again and again at random moments loses no finished cell and ends with the
// bits of an undisturbed one.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/files.h"
#include "testing/run_files.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;
using testing::find_files;
using testing::finished_trainings;
using testing::FinishedTraining;
using testing::Outcome;
using testing::Process;

constexpr std::size_t kCells = 20;
constexpr int kKills = 100;
constexpr unsigned kSeed = 20260511;
// Uniform up to here: from before the first file to the middle of the sweep.
constexpr int kLatestKillMs = 250;

/// Bytes and time of every record: rewriting one would lose nothing, but waste its computation.
std::map<fs::path, std::pair<std::string, fs::file_time_type>> records(const fs::path& root) {
  std::map<fs::path, std::pair<std::string, fs::file_time_type>> found;
  if (!fs::exists(root)) return found;
  for (const fs::path& path : find_files(root, "record.json")) {
    found[path] = {testing::slurp(path), fs::last_write_time(path)};
  }
  return found;
}

TEST(Faults, AHundredKillsLoseNothingThatWasFinished) {
  const testing::TemporaryFolder folder;
  const fs::path config = folder.path() / "config.json";
  // Cells of some 40 ms, with checkpoints in between.
  write_file_atomically(config, R"({"experiment": "mqar", "name": "faults", "threads": 1,
      "mixers": ["linear", "vla"], "sweep": {"task.n_pairs": [2, 3]}, "seeds": [1, 2, 3, 4, 5],
      "model": {"n_heads": 2, "d_h": 4, "n_layers": 1, "d_ff": 8, "vocab_size": 16},
      "train": {"steps": 200, "batch": 8, "warmup": 10, "log_every": 10, "checkpoint_every": 40},
      "eval": {"batches": 2, "batch": 8}})");
  const auto command = [&](const fs::path& out) {
    return std::vector<std::string>{"run", config.string(), "--out", out.string(), "--jobs", "2"};
  };
  const fs::path whole = folder.path() / "whole";
  ASSERT_EQ(testing::run_program(command(whole)).exit_code, 0);
  const std::map<std::string, FinishedTraining> expected = finished_trainings(whole);
  ASSERT_EQ(expected.size(), kCells);

  std::cout << "seed " << kSeed << '\n';
  std::mt19937 random(kSeed);
  std::uniform_int_distribution<int> moment(0, kLatestKillMs);
  int kills = 0, sweeps = 0;
  while (kills < kKills) {
    const fs::path out = folder.path() / std::to_string(sweeps++);
    bool complete = false;
    while (!complete) {
      SCOPED_TRACE("kill " + std::to_string(kills) + ", sweep " + std::to_string(sweeps));
      const auto before = records(out);
      Process process(command(out));
      if (kills < kKills) {
        std::this_thread::sleep_for(std::chrono::milliseconds(moment(random)));
        process.send(SIGKILL);
      }
      const Outcome outcome = process.wait();
      complete = outcome.exit_code == 0;
      ASSERT_TRUE(complete || outcome.signal == SIGKILL) << outcome.err;
      if (!complete) ++kills;

      const auto after = records(out);
      for (const auto& [path, content] : before) {
        ASSERT_TRUE(after.contains(path) && after.at(path) == content) << path;
      }
      // Throws where a record is not whole.
      for (const auto& [cell, found] : finished_trainings(out)) {
        ASSERT_TRUE(found == expected.at(cell)) << cell;
      }
    }
    EXPECT_EQ(finished_trainings(out).size(), kCells);
  }
  std::cout << kills << " kills in " << sweeps << " sweeps\n";
}

}  // namespace
}  // namespace vla_bench
