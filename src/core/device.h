// Where arrays live and kernels run. A build without CUDA links core/no_cuda, whose functions
// answer "not available" with the reason.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vla_bench {

enum class Device { cpu, cuda };

/// What a config or flag asks for; `automatic` ("auto") takes a GPU when there is one.
enum class DeviceRequest { automatic, cpu, cuda };

std::string_view device_name(Device device);  // "cpu" or "cuda"

/// Arithmetic of matrix products and of softmax attention on a GPU: plain float32, or tensor cores
/// on operands rounded to TF32 (10 bits of mantissa) or bfloat16 (7), summed in float32. What is
/// stored is float32 in all three. The CPU has float32 alone.
enum class Precision { float32, tf32, bf16 };

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

/// (name, version) of the CUDA toolkit this binary was built with and of the CUDA libraries it is
/// linked with; empty in a build without CUDA.
std::vector<std::pair<std::string, std::string>> cuda_library_versions();

/// The GPU that the calling thread's arrays and work go to from now on, 0 .. count - 1 (initially
/// 0). Each thread has a stream of its own there: threads do not wait for each other's work.
void cuda_select_device(int index);

/// Turns a request into a device. Throws BadInput when cuda is asked for and not available.
Device resolve_device(DeviceRequest request);

/// Zeroed, 64-byte aligned memory on `device`. Throws RunError naming the size when it cannot be
/// had.
void* device_allocate(Device device, std::size_t bytes);
void device_free(Device device, void* pointer) noexcept;

/// Copies between any two devices; synchronous.
void device_copy(Device to_device, void* to, Device from_device, const void* from,
                 std::size_t bytes);

/// Returns when everything the calling thread has asked of `device` is done. Throws RunError when
/// some of it failed.
void device_wait(Device device);

/// Work that is asked for again and again with the same arguments: on a GPU recorded once (a CUDA
/// graph) and replayed without the cost of launching its parts; on the CPU simply called.
class Replay {
 public:
  /// Records `work`, which must have run before on the same arguments: while it is recorded it may
  /// neither allocate nor wait. What changes from one run to the next it reads from device memory.
  Replay(Device device, std::function<void()> work);
  ~Replay();
  Replay(Replay&&) noexcept;
  Replay& operator=(Replay&&) noexcept;

  /// Asks for one more run; does not wait for it.
  void run();

  class Recording {  // the device's side
   public:
    virtual ~Recording() = default;
    virtual void launch() = 0;
  };

 private:
  std::function<void()> work_;            // CPU
  std::unique_ptr<Recording> recording_;  // GPU
};

}  // namespace vla_bench
