#include <string>

#include "bench/cuda_ceilings.h"
#include "bench/device_timer.h"
#include "core/error.h"

namespace vla_bench {
namespace {

[[noreturn]] void refuse(const char* operation) {
  throw RunError(std::string("[cuda] ") + operation + ": this binary was built without CUDA");
}

}  // namespace

Timing measure_device(const TimingRule&, const std::function<void(Index)>&) {
  refuse("measure_device");
}

GpuMemory gpu_memory() { refuse("gpu_memory"); }

namespace cuda {

int current_device() { refuse("current_device"); }

Ceilings measure_ceilings(Precision) { refuse("measure_ceilings"); }

}  // namespace cuda
}  // namespace vla_bench
