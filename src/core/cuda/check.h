// Errors of the CUDA runtime as exceptions. For files that a build without CUDA leaves out.
#pragma once

#include <cuda_runtime_api.h>

namespace vla_bench::cuda {

/// Throws RunError "cuda: <call>: <reason>"; std::bad_alloc's place is taken by a RunError that
/// says "out of memory".
[[noreturn]] void fail(cudaError_t error, const char* call);

inline void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) fail(error, call);
}

}  // namespace vla_bench::cuda

/// Every runtime call goes through this one.
#define VLA_CUDA(call) ::vla_bench::cuda::check((call), #call)
/// After a launch: <<<...>>> itself returns nothing.
#define VLA_CUDA_LAUNCHED(kernel) ::vla_bench::cuda::check(cudaGetLastError(), kernel)
