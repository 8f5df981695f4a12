// Provenance of results: program, build, machine.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace vla_bench {

/// Ordered key-value facts: version, git hash, dirty flag, compiler, flags, build type, SIMD,
/// processor, cores, threads, jobs, CUDA, library versions. No host names, no paths, no user.
/// `cores` are those that this process may use, `threads` those of one cell, `jobs` the workers
/// that ran cells concurrently.
std::vector<std::pair<std::string, std::string>> provenance(int threads,
                                                            std::optional<int> jobs = {});

}  // namespace vla_bench
