#include "core/threads.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

/// A folder tree that replaces "/".
class FakeRoot {
 public:
  void write(const std::filesystem::path& path, const std::string& text) const {
    std::filesystem::create_directories((root_.path() / path).parent_path());
    std::ofstream(root_.path() / path) << text;
  }
  std::optional<double> quota() const { return cgroup_cpu_quota(root_.path()); }

 private:
  testing::TemporaryFolder root_;
};

TEST(CgroupQuota, VersionTwoIsTheLowestOnTheWayUp) {
  const FakeRoot root;
  EXPECT_EQ(root.quota(), std::nullopt) << "no cgroups at all";
  root.write("proc/self/cgroup", "0::/user.slice/job\n");
  EXPECT_EQ(root.quota(), std::nullopt);
  root.write("sys/fs/cgroup/user.slice/job/cpu.max", "max 100000\n");
  EXPECT_EQ(root.quota(), std::nullopt);
  root.write("sys/fs/cgroup/user.slice/job/cpu.max", "800000 100000\n");
  EXPECT_EQ(root.quota(), 8.0);
  root.write("sys/fs/cgroup/user.slice/cpu.max", "75000 50000\n");
  EXPECT_EQ(root.quota(), 1.5);
  root.write("sys/fs/cgroup/user.slice/other/cpu.max", "10000 100000\n");
  EXPECT_EQ(root.quota(), 1.5) << "a neighbour's";
}

TEST(CgroupQuota, VersionOneIsReadWhereItsControllersAreMounted) {
  for (const char* mount : {"cpu,cpuacct", "cpu"}) {
    const FakeRoot root;
    root.write("proc/self/cgroup", "5:cpuset:/a\n4:cpu,cpuacct:/a/b\n0::/\n");
    const std::string group = std::string("sys/fs/cgroup/") + mount + "/a/b/";
    root.write(group + "cpu.cfs_period_us", "100000\n");
    root.write(group + "cpu.cfs_quota_us", "-1\n");
    EXPECT_EQ(root.quota(), std::nullopt);
    root.write(group + "cpu.cfs_quota_us", "300000\n");
    EXPECT_EQ(root.quota(), 3.0);
  }
}

// In a container the path may be the host's, and the group itself is what is mounted.
TEST(CgroupQuota, APathThatIsNotThereLeavesTheMountPoint) {
  const FakeRoot one, two;
  one.write("proc/self/cgroup", "4:cpu:/docker/0123\n");
  one.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000");
  one.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(one.quota(), 2.0);
  two.write("proc/self/cgroup", "0::/../elsewhere\n");
  two.write("sys/fs/cgroup/cpu.max", "50000 100000");
  EXPECT_EQ(two.quota(), 0.5);
}

TEST(CgroupQuota, NonsenseIsNoLimit) {
  const FakeRoot root;
  root.write("proc/self/cgroup", "0::/\nnonsense\n:\n4:cpu:/\n");
  for (const char* text : {"", "x", "-5 100000", "100000 0", "100000"}) {
    root.write("sys/fs/cgroup/cpu.max", text);
    root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", text);
    EXPECT_EQ(root.quota(), std::nullopt) << text;
  }
}

TEST(OutermostThreads, AreTheFirstOfTheList) {
  EXPECT_EQ(outermost_threads("4"), 4);
  EXPECT_EQ(outermost_threads(" 3 , 2"), 3);
  EXPECT_EQ(outermost_threads("8,2,1"), 8);
  for (const char* text : {"", "0", "-2", "four", "2x", ",2", "4097", "99999999999"}) {
    EXPECT_EQ(outermost_threads(text), std::nullopt) << text;
  }
}

TEST(UsableProcessors, FollowTheAffinityOfTheThread) {
  int usable = 0;
  std::thread([&] {
    cpu_set_t mask;
    ASSERT_EQ(sched_getaffinity(0, sizeof(mask), &mask), 0);
    int first = 0;
    while (!CPU_ISSET(first, &mask)) ++first;
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    ASSERT_EQ(sched_setaffinity(0, sizeof(mask), &mask), 0);
    usable = usable_processors().count;
  }).join();
  EXPECT_EQ(usable, 1);
}

class ChooseThreads : public ::testing::Test {
 protected:
  void SetUp() override { unsetenv("OMP_NUM_THREADS"); }
  void TearDown() override { unsetenv("OMP_NUM_THREADS"); }
};

TEST_F(ChooseThreads, TakesEveryProcessorUnlessToldOtherwise) {
  const Processors processors = usable_processors();
  const ThreadChoice all = choose_threads(0);
  EXPECT_EQ(all.threads, processors.count);
  EXPECT_EQ(all.decided_by, processors.limit);
  EXPECT_EQ(all.warning, "");

  setenv("OMP_NUM_THREADS", "1,2", 1);
  EXPECT_EQ(choose_threads(0).threads, 1);
  EXPECT_EQ(choose_threads(0).decided_by, "OMP_NUM_THREADS=1,2");
  EXPECT_EQ(choose_threads(processors.count).threads, processors.count) << "what is asked for";

  setenv("OMP_NUM_THREADS", "many", 1);
  EXPECT_EQ(choose_threads(0).threads, processors.count);
  EXPECT_NE(choose_threads(0).warning.find("OMP_NUM_THREADS=many is ignored"), std::string::npos);
}

TEST_F(ChooseThreads, WarnsOfMoreThanThereAreProcessors) {
  const ThreadChoice asked = choose_threads(kMostThreads);
  EXPECT_EQ(asked.threads, kMostThreads);
  EXPECT_NE(asked.warning.find("4096 threads (asked for) on "), std::string::npos) << asked.warning;
  setenv("OMP_NUM_THREADS", "4096", 1);
  EXPECT_NE(choose_threads(0).warning.find("4096 threads (OMP_NUM_THREADS=4096) on "),
            std::string::npos);
  EXPECT_THROW(choose_threads(-1), BadInput);
  EXPECT_THROW(choose_threads(kMostThreads + 1), BadInput);
}

}  // namespace
}  // namespace vla_bench
