#pragma once

#include <cuda_runtime_api.h>

namespace vla_bench::cuda {

/// Queues a kernel that keeps `stream` busy for `nanoseconds` without touching memory.
void hold(cudaStream_t stream, unsigned long long nanoseconds);

}  // namespace vla_bench::cuda
