// Versions of the CUDA toolkit and of the CUDA libraries that the program loads.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstddef>
#include <string>

#include "core/cuda_device.h"

// Weak symbols: core itself uses none of these libraries. Each is null in a program that does not,
// and returns 0 where the library cannot be loaded.
extern "C" {
[[gnu::weak]] std::size_t cublasLtGetVersion();
[[gnu::weak]] std::size_t cudnnGetVersion();
}

namespace vla_bench::cuda {
namespace {

/// cuBLAS from 11 on and cuDNN from 9 on: major * 10,000 + minor * 100 + patch.
std::string version_text(std::size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> library_versions() {
  // The runtime library is linked in, so this is its version too.
  std::vector<std::pair<std::string, std::string>> versions = {
      {"cuda_toolkit", fmt::format("{}.{}", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10)}};
  const auto add = [&](const char* name, std::size_t (*version)()) {
    if (version == nullptr) return;
    if (const std::size_t number = version(); number != 0) {
      versions.emplace_back(name, version_text(number));
    }
  };
  add("cublaslt", cublasLtGetVersion);
  add("cudnn", cudnnGetVersion);
  return versions;
}

}  // namespace vla_bench::cuda
