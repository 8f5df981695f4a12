// The number of threads of the program, as a user sees it.
#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "core/threads.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

using testing::Outcome;
using testing::run_program;

nlohmann::json info() {
  const Outcome outcome = run_program({"info", "--json"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  return nlohmann::json::parse(outcome.out);
}

TEST(Threads, AreTheProcessorsThatTheProcessMayUse) {
  unsetenv("OMP_NUM_THREADS");
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  EXPECT_EQ(info()["threads"], std::to_string(usable_processors().count));
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  // As taskset does, since a child inherits the mask.
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  const nlohmann::json facts = info();
  EXPECT_EQ(facts["threads"], "1");
  EXPECT_EQ(facts["cores"], "1");
  if (CPU_COUNT(&before) > 1) {
    EXPECT_NE(facts["threads_from"].get<std::string>().find("affinity: 1 of"), std::string::npos);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST(Threads, AreThoseOfOmpNumThreadsByDefault) {
  setenv("OMP_NUM_THREADS", "1", 1);
  EXPECT_EQ(info()["threads"], "1");
  EXPECT_EQ(info()["threads_from"], "OMP_NUM_THREADS=1");
  unsetenv("OMP_NUM_THREADS");
}

TEST(Threads, MoreThanThereAreProcessorsAreWarnedOf) {
  const testing::TemporaryFolder folder;
  const auto run = [&](const std::string& threads) {
    return run_program({"run", (testing::source_dir() / "configs/recall.json").string(), "--out",
                        folder.path().string(), "--dry-run", "--threads", threads});
  };
  const Outcome many = run("4096");
  EXPECT_EQ(many.exit_code, 0);
  const std::string warning = "4096 threads (asked for) on ";
  const std::size_t at = many.err.find(warning);
  ASSERT_NE(at, std::string::npos) << many.err;
  EXPECT_EQ(many.err.find(warning, at + 1), std::string::npos) << "once\n" << many.err;
  EXPECT_EQ(run("1").err.find(" threads ("), std::string::npos);
}

}  // namespace
}  // namespace vla_bench
