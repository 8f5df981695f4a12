// What made a number: program, build, machine.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace vla_bench {

/// Ordered key-value facts: version, git hash, dirty flag, compiler, flags, build type, SIMD,
/// processor, cores, threads, CUDA, library versions. No host names, no paths, no user.
std::vector<std::pair<std::string, std::string>> provenance(int threads);
std::string provenance_json(int threads);

}  // namespace vla_bench
