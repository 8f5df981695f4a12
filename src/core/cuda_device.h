// The CUDA side of core/device.h. Exactly one file defines these: no_cuda/device_no_cuda.cpp in a
// build without CUDA, whose allocate and copy throw RunError with cuda_status's reason.
#pragma once

#include <cstddef>

#include "core/device.h"

namespace vla_bench::cuda {

CudaStatus status();
void* allocate(std::size_t bytes);
void release(void* pointer) noexcept;
/// At least one side is Device::cuda.
void copy(Device to_device, void* to, Device from_device, const void* from, std::size_t bytes);
int device_count();
std::string describe_device(int index);
std::vector<std::pair<std::string, std::string>> library_versions();
void select_device(int index);
void wait();
/// See Replay's constructor.
std::unique_ptr<Replay::Graph> capture(const std::function<void()>& work);

}  // namespace vla_bench::cuda
