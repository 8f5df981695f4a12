#include "core/threads.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "core/error.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

int online_processors() { return static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN))); }

/// Processors in the calling thread's mask.
int processors_by_affinity() {
  // The kernel refuses a mask shorter than its own, and does not say how long that is.
  constexpr int kMostProcessors = 1 << 20;
  for (int size = CPU_SETSIZE; size <= kMostProcessors; size *= 2) {
    const std::size_t bytes = CPU_ALLOC_SIZE(size);
    std::vector<cpu_set_t> mask(bytes / sizeof(cpu_set_t) + 1);
    if (sched_getaffinity(0, bytes, mask.data()) == 0) {
      return std::max(1, CPU_COUNT_S(bytes, mask.data()));
    }
    if (errno != EINVAL) break;
  }
  return online_processors();
}

/// The quota of a cgroup of version 2: "150000 100000", or "max 100000" without a limit.
std::optional<double> quota_v2(const fs::path& cgroup) {
  std::ifstream file(cgroup / "cpu.max");
  double quota = 0.0, period = 0.0;
  if (file >> quota >> period && quota > 0 && period > 0) return quota / period;
  return {};
}

/// The quota of a cgroup of version 1, where -1 means no limit.
std::optional<double> quota_v1(const fs::path& cgroup) {
  double quota = 0.0, period = 0.0;
  std::ifstream(cgroup / "cpu.cfs_quota_us") >> quota;
  std::ifstream(cgroup / "cpu.cfs_period_us") >> period;
  if (quota > 0 && period > 0) return quota / period;
  return {};
}

/// A line of /proc/self/cgroup: "4:cpu,cpuacct:/some/group", or "0::/some/group" in version 2.
struct Membership {
  std::string controllers;
  fs::path group;  // below the mount point
};

std::vector<Membership> memberships(const fs::path& root) {
  std::vector<Membership> found;
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    // A process outside its namespace's root sees "/../other".
    const fs::path group = fs::path(line.substr(second + 1)).lexically_normal();
    found.push_back({line.substr(first + 1, second - first - 1), group.relative_path()});
  }
  return found;
}

bool has_cpu(const std::string& controllers) {
  return ("," + controllers + ",").find(",cpu,") != std::string::npos;
}

template <class Quota>
void lower(std::optional<double>& lowest, const fs::path& mount, const fs::path& group,
           const Quota& quota_of) {
  // A container may see its own group at the mount point, whatever the path says.
  for (fs::path below = group;; below = below.parent_path()) {
    const std::optional<double> quota = quota_of(mount / below);
    if (quota && (!lowest || *quota < *lowest)) lowest = quota;
    if (below.empty()) return;
  }
}

}  // namespace

std::optional<double> cgroup_cpu_quota(const fs::path& root) {
  std::optional<double> lowest;
  const fs::path mounts = root / "sys/fs/cgroup";
  for (const auto& [controllers, group] : memberships(root)) {
    if (controllers.empty()) {
      for (const fs::path& mount : {mounts, mounts / "unified"}) {
        lower(lowest, mount, group, quota_v2);
      }
    } else if (has_cpu(controllers)) {
      for (const fs::path& mount : {mounts / controllers, mounts / "cpu"}) {
        lower(lowest, mount, group, quota_v1);
      }
    }
  }
  return lowest;
}

Processors usable_processors() {
  const int online = online_processors();
  const int allowed = processors_by_affinity();
  const std::optional<double> quota = cgroup_cpu_quota();
  if (quota && *quota < allowed) {
    return {.count = std::max(1, static_cast<int>(*quota)),
            .limit = fmt::format("cgroup: a quota of {:g} processors", *quota)};
  }
  if (allowed < online) {
    return {.count = allowed,
            .limit = fmt::format("affinity: {} of {} processors", allowed, online)};
  }
  return {.count = allowed, .limit = "all processors there are"};
}

std::optional<int> outermost_threads(std::string_view omp_num_threads) {
  constexpr std::string_view kSpace = " \t";
  std::string_view text = omp_num_threads.substr(0, omp_num_threads.find(','));
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  text = text.substr(0, text.find_last_not_of(kSpace) + 1);
  int threads = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  if (threads < 1 || threads > kMostThreads) return {};
  return threads;
}

ThreadChoice choose_threads(Index requested) {
  if (requested < 0 || requested > kMostThreads) {
    throw BadInput(fmt::format("threads: expected 0 .. {}, got {}", kMostThreads, requested));
  }
  const Processors processors = usable_processors();
  ThreadChoice choice{.threads = processors.count, .decided_by = processors.limit, .warning = {}};
  const char* const variable = std::getenv("OMP_NUM_THREADS");
  const std::string_view omp = variable == nullptr ? std::string_view() : variable;
  if (requested > 0) {
    choice.threads = static_cast<int>(requested);
    choice.decided_by = "asked for";
  } else if (const std::optional<int> threads = outermost_threads(omp)) {
    choice.threads = *threads;
    choice.decided_by = fmt::format("OMP_NUM_THREADS={}", omp);
  } else if (!omp.empty()) {
    choice.warning = fmt::format("OMP_NUM_THREADS={} is ignored: expected a number from 1 to {}",
                                 omp, kMostThreads);
  }
  if (choice.threads > processors.count) {
    choice.warning = fmt::format(
        "{} threads ({}) on {} processors ({}): they wait for each other, and a run can take many "
        "times as long",
        choice.threads, choice.decided_by, processors.count, processors.limit);
  }
  return choice;
}

}  // namespace vla_bench
