// Devices: where arrays live and kernels run. A build without CUDA links core/no_cuda, whose
// functions report "not available" with the reason.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/device_kinds.h"

namespace vla_bench {

std::string_view device_name(Device device);  // "cpu" or "cuda"

struct CudaStatus {
  bool built = false;      // this binary holds CUDA kernels
  bool available = false;  // and a device answers
  std::string detail;      // device name and memory, or why there is none
};
CudaStatus cuda_status();

/// GPUs this process may use; 0 without one.
int cuda_device_count();

/// Name, memory and compute capability of each, in the order of cuda_select_device.
std::vector<std::string> cuda_device_descriptions();

/// (name, version) of the CUDA toolkit that built this binary and of the CUDA libraries that it
/// finds; empty in a build without CUDA.
std::vector<std::pair<std::string, std::string>> cuda_library_versions();

/// Selects the GPU of the calling thread's arrays and work, 0 .. count - 1 (initially 0). Each
/// thread has its own stream there: threads do not wait for each other's work.
void cuda_select_device(int index);

/// Turns a request into a device. Throws BadInput when cuda is requested and not available.
Device resolve_device(DeviceRequest request);

/// Allocates zeroed, 64-byte aligned memory on `device`. Throws RunError naming the size when that
/// fails.
void* device_allocate(Device device, std::size_t bytes);
void device_free(Device device, void* pointer) noexcept;

/// Copies between any two devices; synchronous.
void device_copy(Device to_device, void* to, Device from_device, const void* from,
                 std::size_t bytes);

/// Waits until all work that the calling thread launched on `device` is done. Throws RunError when
/// some of it failed.
void device_wait(Device device);

/// Work that runs again and again with the same arguments: on a GPU a CUDA graph, captured once and
/// replayed without the cost of its single launches; on the CPU a plain call.
class Replay {
 public:
  /// Captures `work`, which must have run once before on the same arguments, since it may neither
  /// allocate nor wait during capture. It reads what changes between runs from device memory.
  Replay(Device device, std::function<void()> work);
  ~Replay();
  Replay(Replay&&) noexcept;
  Replay& operator=(Replay&&) noexcept;

  /// Launches one more run; does not wait for it.
  void run();

  class Graph {  // implemented by the device
   public:
    virtual ~Graph() = default;
    virtual void launch() = 0;
  };

 private:
  std::function<void()> work_;    // CPU
  std::unique_ptr<Graph> graph_;  // GPU
};

}  // namespace vla_bench
