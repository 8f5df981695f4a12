// The CUDA side of bench/ceilings.h. A build without CUDA links no_cuda/device_timer_no_cuda.cpp.
#pragma once

#include "bench/ceilings.h"

namespace vla_bench::cuda {

/// The GPU that the calling thread works on.
int current_device();

/// Measures that GPU now.
Ceilings measure_ceilings(Precision precision);

}  // namespace vla_bench::cuda
