// Where arrays live and kernels run. A build without CUDA links core/no_cuda, whose functions
// answer "not available" with the reason.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace vla_bench {

enum class Device { cpu, cuda };

/// What a config or flag asks for; `automatic` ("auto") takes a GPU when there is one.
enum class DeviceRequest { automatic, cpu, cuda };

std::string_view device_name(Device device);  // "cpu" or "cuda"

struct CudaStatus {
  bool built = false;      // this binary holds CUDA kernels
  bool available = false;  // and a device answers
  std::string detail;      // device name and memory, or why there is none
};
CudaStatus cuda_status();

/// Turns a request into a device. Throws BadInput when cuda is asked for and not available.
Device resolve_device(DeviceRequest request);

/// Zeroed, 64-byte aligned memory on `device`. Throws RunError naming the size when it cannot be
/// had.
void* device_allocate(Device device, std::size_t bytes);
void device_free(Device device, void* pointer) noexcept;

/// Copies between any two devices; synchronous.
void device_copy(Device to_device, void* to, Device from_device, const void* from,
                 std::size_t bytes);

}  // namespace vla_bench
