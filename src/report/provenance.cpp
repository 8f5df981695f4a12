#include "report/provenance.h"

#include <Eigen/src/Core/util/Macros.h>  // only the version: Eigen/Core takes seconds to compile
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <hwy/highway.h>
#include <spdlog/version.h>
#include <xxhash.h>

#include <CLI/Version.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "build_info.h"
#include "core/device.h"
#include "core/threads.h"

namespace vla_bench {
namespace {

std::string compiler() {
#if defined(__clang__)
  return fmt::format("clang {}", __clang_version__);
#elif defined(__GNUC__)
  return fmt::format("gcc {}", __VERSION__);
#else
  return "unknown";
#endif
}

/// Instruction sets the compiler was allowed to use.
std::vector<std::string> compiled_simd() {
  std::vector<std::string> names;
#if defined(__AVX512F__)
  names.push_back("avx512f");
#endif
#if defined(__AVX512BW__)
  names.push_back("avx512bw");
#endif
#if defined(__AVX2__)
  names.push_back("avx2");
#endif
#if defined(__FMA__)
  names.push_back("fma");
#endif
#if defined(__AVX__)
  names.push_back("avx");
#endif
#if defined(__SSE2__)
  names.push_back("sse2");
#endif
#if defined(__ARM_NEON)
  names.push_back("neon");
#endif
#if defined(__ARM_FEATURE_SVE)
  names.push_back("sve");
#endif
  return names;
}

/// Instruction sets this processor has.
std::vector<std::string> processor_simd() {
  std::vector<std::string> names;
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx512f")) names.push_back("avx512f");
  if (__builtin_cpu_supports("avx512bw")) names.push_back("avx512bw");
  if (__builtin_cpu_supports("avx2")) names.push_back("avx2");
  if (__builtin_cpu_supports("fma")) names.push_back("fma");
  if (__builtin_cpu_supports("avx")) names.push_back("avx");
  if (__builtin_cpu_supports("sse2")) names.push_back("sse2");
#endif
  return names;
}

std::string joined(const std::vector<std::string>& names) {
  return names.empty() ? "unknown" : fmt::format("{}", fmt::join(names, " "));
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

std::string cuda() {
  const CudaStatus status = cuda_status();
  return fmt::format("{}: {}", status.available ? "available" : "not available", status.detail);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> provenance(int threads, std::optional<int> jobs) {
  std::vector<std::pair<std::string, std::string>> facts = {
      {"version", build_info::kVersion},
      {"git_hash", build_info::kGitHash},
      {"git_dirty", build_info::kGitDirty},
      {"compiler", compiler()},
      {"build_type", build_info::kBuildType},
      {"flags", build_info::kFlags},
      {"simd_compiled", joined(compiled_simd())},
      {"simd_processor", joined(processor_simd())},
      {"processor", processor()},
      {"cores", std::to_string(usable_processors().count)},
      {"threads", std::to_string(threads)},
  };
  if (jobs) facts.emplace_back("jobs", std::to_string(*jobs));
  facts.emplace_back("cuda", cuda());
  for (auto& library : cuda_library_versions()) facts.push_back(std::move(library));
  facts.insert(
      facts.end(),
      {
          {"eigen",
           fmt::format("{}.{}.{}", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION)},
          {"fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100,
                              FMT_VERSION % 100)},
          {"spdlog", fmt::format("{}.{}.{}", SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH)},
          {"cli11", CLI11_VERSION},
          {"nlohmann_json", fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR,
                                        NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH)},
          {"highway", fmt::format("{}.{}.{}", HWY_MAJOR, HWY_MINOR, HWY_PATCH)},
          {"random123", "headers without a version; philox4x32-10"},
          {"xxhash",
           fmt::format("{}.{}.{}", XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE)},
          {"openmp", std::to_string(_OPENMP)},
      });
  return facts;
}

}  // namespace vla_bench
