// A results folder on a disk that is full, and later has room again.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/files.h"
#include "testing/run_files.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;
using testing::finished_trainings;
using testing::Outcome;
using testing::run_program;

/// Enters a new mount namespace, so that no mount outlives this process; if necessary within a user
/// namespace in which the process is root. Returns the reason of a failure, or "".
std::string enter_mount_namespace() {
  const uid_t user = geteuid();
  const gid_t group = getegid();
  const int flags = user == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
  if (unshare(flags) != 0) return std::string("no mount namespace: ") + std::strerror(errno);
  if (user != 0) {
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << user << " 1";
    std::ofstream("/proc/self/gid_map") << "0 " << group << " 1";
  }
  // Otherwise mounts would show outside.
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return std::string("no private mounts: ") + std::strerror(errno);
  }
  return {};
}

/// A tmpfs, unmounted at the end of its scope.
class SmallDisk {
 public:
  SmallDisk(const fs::path& path, const std::string& size) : path_(path) {
    fs::create_directory(path);
    mounted_ = mount("tmpfs", path.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
    if (!mounted_) reason_ = std::strerror(errno);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }

  const std::string& reason() const { return reason_; }  // empty when it is mounted
  bool resize(const std::string& size) const {
    return mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT, ("size=" + size).c_str()) == 0;
  }

 private:
  fs::path path_;
  bool mounted_ = false;
  std::string reason_;
};

TEST(FullDisk, IsAClearErrorAndTheSweepCompletesWithSpace) {
  const testing::TemporaryFolder folder;
  if (const std::string reason = enter_mount_namespace(); !reason.empty()) GTEST_SKIP() << reason;
  const SmallDisk disk(folder.path() / "disk", "200k");
  if (!disk.reason().empty()) GTEST_SKIP() << "a tmpfs cannot be mounted: " << disk.reason();

  const fs::path config = folder.path() / "config.json";
  write_file_atomically(config, R"({"experiment": "mqar", "name": "full", "threads": 1,
      "mixers": ["linear", "vla"], "seeds": [1, 2, 3, 4, 5],
      "model": {"n_heads": 2, "d_h": 4, "n_layers": 1, "d_ff": 8, "vocab_size": 16,
                "max_seq_len": 64},
      "task": {"n_pairs": 3},
      "train": {"steps": 20, "batch": 4, "warmup": 1, "log_every": 5, "checkpoint_every": 5},
      "eval": {"batches": 1, "batch": 4}})");
  const auto command = [&](const char* out) {
    return std::vector<std::string>{
        "run", config.string(), "--out", (folder.path() / out).string(), "--jobs", "2"};
  };
  const Outcome whole = run_program(command("whole"));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const auto expected = finished_trainings(folder.path() / "whole");
  ASSERT_EQ(expected.size(), 10u);

  // Twice: the second time the disk is full from the start.
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Outcome full = run_program(command("disk/runs"));
    EXPECT_TRUE(full.exit_code == 1 || full.exit_code == 2) << full.exit_code << full.err;
    EXPECT_NE(full.err.find("No space left on device"), std::string::npos) << full.err;
    EXPECT_NE(full.err.find((folder.path() / "disk").string()), std::string::npos) << full.err;
    const auto finished = finished_trainings(folder.path() / "disk");
    EXPECT_LT(finished.size(), expected.size());
    if (attempt == 0) {
      EXPECT_GT(finished.size(), 0u) << "too small a disk to show anything";
    }
    for (const auto& [cell, found] : finished) EXPECT_TRUE(found == expected.at(cell)) << cell;
    for (const auto& entry : fs::recursive_directory_iterator(folder.path() / "disk")) {
      EXPECT_FALSE(is_temporary_file(entry.path())) << entry.path();
    }
  }

  ASSERT_TRUE(disk.resize("64m")) << std::strerror(errno);
  const Outcome completed = run_program(command("disk/runs"));
  EXPECT_EQ(completed.exit_code, 0) << completed.err;
  EXPECT_TRUE(finished_trainings(folder.path() / "disk") == expected);
}

}  // namespace
}  // namespace vla_bench
