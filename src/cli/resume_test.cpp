// A run that is killed and started again ends with the bits of an undisturbed one.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "core/files.h"
#include "core/safetensors.h"
#include "testing/run_files.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

using testing::Outcome;
using testing::Process;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

class Resume : public ::testing::Test {
 protected:
  Resume() {
    // Long enough (some hundred milliseconds) to be killed in the middle.
    write_file_atomically(config_,
                          R"({"experiment": "mqar", "name": "resume", "seeds": [5], "threads": 1,
        "mixers": ["vla"], "task": {"n_pairs": 4},
        "model": {"n_heads": 2, "d_h": 8, "n_layers": 1, "d_ff": 16, "vocab_size": 32},
        "train": {"steps": 600, "batch": 8, "warmup": 10, "log_every": 7, "checkpoint_every": 40},
        "eval": {"batches": 2, "batch": 8}})");
  }

  std::vector<std::string> command(const std::string& out,
                                   const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"run", config_.string(), "--out",
                                          (folder_.path() / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  /// Every cell below a results folder, in the order of their hashes.
  std::vector<CellFolder> cells(const std::string& out) const {
    std::vector<CellFolder> found;
    for (const auto& entry : fs::directory_iterator(folder_.path() / out / "resume")) {
      const bool cell = entry.is_directory() && entry.path().filename() != "tables";
      if (cell) found.push_back({entry.path()});
    }
    std::sort(found.begin(), found.end(), [](const CellFolder& a, const CellFolder& b) {
      return a.path.filename() < b.path.filename();
    });
    return found;
  }

  /// The only cell below a results folder.
  CellFolder cell(const std::string& out) const { return cells(out).at(0); }

  /// Starts a run, sends `signal_number` once it has written a checkpoint, and waits for its end.
  Outcome disturb(const std::string& out, int signal_number,
                  const std::vector<std::string>& more = {}) const {
    Process process(command(out, more));
    await_checkpoint(out);
    process.send(signal_number);
    return process.wait();
  }

  void await_checkpoint(const std::string& out) const { await_file(out, "checkpoint.safetensors"); }

  /// Returns when a cell has that file.
  void await_file(const std::string& out, const std::string& name) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      if (fs::exists(folder_.path() / out) &&
          !testing::find_files(folder_.path() / out, name).empty()) {
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  /// Every tensor of a checkpoint and every value of a table except times.
  void expect_same_bits(const CellFolder& actual, const CellFolder& expected) const {
    const TensorFile a = TensorFile::read(actual.checkpoint());
    const TensorFile b = TensorFile::read(expected.checkpoint());
    ASSERT_EQ(a.names(), b.names());
    for (const std::string& name : a.names()) {
      if (name.find("seconds") != std::string::npos) continue;
      EXPECT_EQ(a.at(name).data, b.at(name).data) << name;
    }
    const auto record = [](const CellFolder& folder) {
      return read_record(read_file(folder.record()), folder.path.string(), ReadHistory::yes);
    };
    EXPECT_EQ(to_csv(record(actual).history), to_csv(record(expected).history));
    EXPECT_EQ(comparable_rows(record(actual)), comparable_rows(record(expected)));
  }

  TemporaryFolder folder_;
  const fs::path config_ = folder_.path() / "config.json";
};

TEST_F(Resume, AfterAKillTheResultHasTheSameBits) {
  const Outcome undisturbed = testing::run_program(command("whole"));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const Outcome killed = disturb("killed", SIGKILL);
  ASSERT_EQ(killed.signal, SIGKILL) << killed.err;
  ASSERT_FALSE(fs::exists(cell("killed").record())) << "the run ended before it could be killed";
  const Outcome resumed = testing::run_program(command("killed"));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  expect_same_bits(cell("killed"), cell("whole"));
}

// A user may start a run twice. Both write into the same cells.
TEST_F(Resume, TwinsMayBeKilledToo) {
  const Outcome undisturbed = testing::run_program(command("whole"));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  Process first(command("twins"));
  await_checkpoint("twins");
  Process second(command("twins"));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  first.send(SIGKILL);
  second.send(SIGKILL);
  first.wait();
  second.wait();
  const Outcome resumed = testing::run_program(command("twins"));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  expect_same_bits(cell("twins"), cell("whole"));
}

TEST_F(Resume, AnUnusableCheckpointIsNamedAndCostsNothingElse) {
  const Outcome undisturbed = testing::run_program(command("whole"));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  ASSERT_EQ(disturb("damaged", SIGKILL).signal, SIGKILL);
  write_file_atomically(cell("damaged").checkpoint(), "not a checkpoint");
  const Outcome again = testing::run_program(command("damaged"));
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_NE(again.err.find("checkpoint.safetensors"), std::string::npos) << again.err;
  EXPECT_NE(again.err.find("starts at step 0"), std::string::npos) << again.err;
  expect_same_bits(cell("damaged"), cell("whole"));
}

TEST_F(Resume, TerminationCheckpointsAndExitsWith75) {
  const Outcome undisturbed = testing::run_program(command("whole"));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const Outcome stopped = disturb("stopped", SIGTERM);
  EXPECT_EQ(stopped.exit_code, 75) << stopped.err;
  EXPECT_EQ(stopped.out, "");
  ASSERT_FALSE(fs::exists(cell("stopped").record()));
  ASSERT_EQ(testing::run_program(command("stopped")).exit_code, 0);
  expect_same_bits(cell("stopped"), cell("whole"));
}

// Only the signal makes this run write a checkpoint.
TEST_F(Resume, TerminationCheckpointsWithinSeconds) {
  const std::vector<std::string> rarely = {
      "--set", "train.checkpoint_every=0", "--set", "train.steps=2000", "--set", "train.batch=16"};
  const Outcome undisturbed = testing::run_program(command("whole", rarely));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  Process process(command("stopped", rarely));
  await_file("stopped", "begun.json");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // some hundred steps
  const auto sent = std::chrono::steady_clock::now();
  process.send(SIGTERM);
  EXPECT_EQ(process.wait().exit_code, 75);
  EXPECT_LT(std::chrono::steady_clock::now() - sent, std::chrono::seconds(5));
  ASSERT_FALSE(fs::exists(cell("stopped").record())) << "the run ended before it could be stopped";
  const Index step = TensorFile::read(cell("stopped").checkpoint()).integer("step");
  EXPECT_GT(step, 0);
  EXPECT_LT(step, 2000);
  ASSERT_EQ(testing::run_program(command("stopped", rarely)).exit_code, 0);
  expect_same_bits(cell("stopped"), cell("whole"));
}

// A scheduler signals the script of a job and the program that it started; the script passes its
// own on.
TEST_F(Resume, SignalsThatComeTogetherAreOne) {
  Process process(command("stopped", {"--set", "train.steps=2000"}));
  await_checkpoint("stopped");
  for (int i = 0; i < 3; ++i) {
    process.send(SIGTERM);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(process.wait().exit_code, 75);
}

// The plan of a large sweep takes a while: a task that is stopped meanwhile is also started again.
TEST_F(Resume, TerminationBeforeTheFirstCellExitsWith75) {
  std::vector<int> seeds(20'000);
  std::iota(seeds.begin(), seeds.end(), 0);
  Process process(command("early", {"--set", fmt::format("seeds=[{}]", fmt::join(seeds, ",")),
                                    "--set", "mixers=[\"linear\",\"deltanet\",\"vla\"]"}));
  process.await_handler(SIGTERM);
  process.send(SIGTERM);
  EXPECT_EQ(process.wait().exit_code, 75);
  EXPECT_TRUE(!fs::exists(folder_.path() / "early") ||
              testing::find_files(folder_.path() / "early", "begun.json").empty());
}

TEST_F(Resume, TerminationReachesEveryWorker) {
  const std::vector<std::string> seeds = {"--set", "seeds=[5,6]"};
  const std::vector<std::string> beside = {"--set", "seeds=[5,6]", "--jobs", "2"};
  const Outcome undisturbed = testing::run_program(command("whole", seeds));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const Outcome stopped = disturb("stopped", SIGTERM, beside);
  EXPECT_EQ(stopped.exit_code, 75) << stopped.err;
  ASSERT_EQ(cells("stopped").size(), 2u);
  for (const CellFolder& cell : cells("stopped")) {
    EXPECT_FALSE(fs::exists(cell.record())) << cell.path;
    EXPECT_TRUE(fs::exists(cell.checkpoint())) << cell.path;
  }
  ASSERT_EQ(testing::run_program(command("stopped", beside)).exit_code, 0);
  for (std::size_t i = 0; i < 2; ++i) expect_same_bits(cells("stopped")[i], cells("whole")[i]);
}

TEST_F(Resume, AnInterruptExitsWith130) {
  const Outcome stopped = disturb("interrupted", SIGINT);
  EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_FALSE(fs::exists(cell("interrupted").record()));
}

}  // namespace
}  // namespace vla_bench
