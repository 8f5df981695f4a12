// Errors of the CUDA runtime as exceptions, and the first thing to check. Only for files that are
// part of a CUDA build.
#pragma once

#include <cuda_runtime_api.h>

namespace vla_bench::cuda {

/// Throws RunError "cuda: <call>: <reason>", or "out of memory on the GPU (<call>)".
[[noreturn]] void fail(cudaError_t error, const char* call);

inline void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) fail(error, call);
}

/// Returns cudaSuccess when this binary holds code for the current device.
cudaError_t find_code();

}  // namespace vla_bench::cuda

/// Every runtime call goes through this one.
#define VLA_CUDA(call) ::vla_bench::cuda::check((call), #call)
/// Checks a kernel launch, which itself returns nothing.
#define VLA_CUDA_LAUNCHED(kernel) ::vla_bench::cuda::check(cudaGetLastError(), kernel)
