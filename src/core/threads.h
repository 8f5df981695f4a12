// How many threads this process may keep busy, and how many it takes.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/array.h"

namespace vla_bench {

inline constexpr Index kMostThreads = 4096;

struct Processors {
  int count = 1;
  std::string limit;  // what decides: "affinity: 1 of 2 processors"
};

/// Processors that the calling thread may run on, at most as many as the CPU quota of its cgroup
/// pays for (rounded down: a thread that shares one waits for the next period; at least 1).
Processors usable_processors();

/// The lowest CPU quota, in processors, of this process's cgroup and those above it, in both
/// versions of cgroups; empty where there is none. `root` stands for "/".
std::optional<double> cgroup_cpu_quota(const std::filesystem::path& root = "/");

/// The first number of a value of OMP_NUM_THREADS ("4,2"); empty unless it is from 1 to
/// kMostThreads.
std::optional<int> outermost_threads(std::string_view omp_num_threads);

struct ThreadChoice {
  int threads = 1;
  std::string decided_by;  // "OMP_NUM_THREADS=4"
  std::string warning;     // more threads than processors, an unreadable OMP_NUM_THREADS; or empty
};

/// `requested` threads; where it is 0 those of OMP_NUM_THREADS, or without it one for every usable
/// processor. Throws BadInput outside 0 .. kMostThreads.
ThreadChoice choose_threads(Index requested);

}  // namespace vla_bench
