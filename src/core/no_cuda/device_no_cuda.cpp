#include <string>

#include "core/cuda_device.h"
#include "core/cuda_run_ahead.h"
#include "core/error.h"

namespace vla_bench::cuda {
namespace {

constexpr const char* kReason = "this binary was built without CUDA";

[[noreturn]] void refuse(const char* operation) {
  throw RunError(std::string("[cuda] ") + operation + ": " + kReason);
}

}  // namespace

CudaStatus status() { return {.built = false, .available = false, .detail = kReason}; }

void* allocate(std::size_t) { refuse("device_allocate"); }

// Nothing was allocated, so there is nothing to release.
void release(void*) noexcept {}

void copy(Device, void*, Device, const void*, std::size_t) { refuse("device_copy"); }

int device_count() { return 0; }

std::string describe_device(int) { refuse("cuda_device_descriptions"); }

std::vector<std::pair<std::string, std::string>> library_versions() { return {}; }

void select_device(int) { refuse("cuda_select_device"); }

void wait() { refuse("device_wait"); }

std::unique_ptr<Replay::Graph> capture(const std::function<void()>&) { refuse("Replay"); }

std::unique_ptr<RunAhead::Marks> make_marks() { refuse("RunAhead"); }

}  // namespace vla_bench::cuda
