#pragma once

#include <cuda_runtime.h>

namespace vla_bench::cuda {

/// Returns cudaSuccess when this binary holds code for the current device.
cudaError_t find_code();

}  // namespace vla_bench::cuda
