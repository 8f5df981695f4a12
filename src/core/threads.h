// How many processors this process may use, and how many threads it starts.
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

/// Processors that the calling thread may run on, limited by the CPU quota of its cgroup (rounded
/// down, since a thread on a fraction of a processor waits for the next period; at least 1).
Processors usable_processors();

/// The lowest CPU quota, in processors, of this process's cgroup and its ancestors, in both
/// versions of cgroups; empty without one. `root` replaces "/" in tests.
std::optional<double> cgroup_cpu_quota(const std::filesystem::path& root = "/");

/// The first number of a value of OMP_NUM_THREADS ("4,2"); empty unless it is from 1 to
/// kMostThreads.
std::optional<int> outermost_threads(std::string_view omp_num_threads);

struct ThreadChoice {
  int threads = 1;
  std::string decided_by;  // "OMP_NUM_THREADS=4"
  std::string warning;     // more threads than processors, an unreadable OMP_NUM_THREADS; or empty
};

/// Chooses `requested` threads; for 0, OMP_NUM_THREADS if it is set, else one thread per usable
/// processor. Throws BadInput outside 0 .. kMostThreads.
ThreadChoice choose_threads(Index requested);

}  // namespace vla_bench
