#include "core/device.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "core/cuda_device.h"
#include "core/error.h"

namespace vla_bench {
namespace {

// A cache line, and a full 512-bit register.
constexpr std::size_t kAlignment = 64;

void* allocate_on_cpu(std::size_t bytes) {
  void* pointer = nullptr;
  // Larger sizes cannot be allocated, and rounding them up could wrap around.
  if (bytes <= static_cast<std::size_t>(PTRDIFF_MAX) - kAlignment) {
    // aligned_alloc requires a multiple of the alignment.
    pointer = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  }
  if (pointer == nullptr) {
    throw RunError(fmt::format("[memory] cannot allocate {} bytes ({:.1f} GiB) on the cpu", bytes,
                               static_cast<double>(bytes) * 0x1p-30));
  }
  std::memset(pointer, 0, bytes);
  return pointer;
}

}  // namespace

std::string_view device_name(Device device) { return device == Device::cuda ? "cuda" : "cpu"; }

CudaStatus cuda_status() { return cuda::status(); }

int cuda_device_count() { return cuda::device_count(); }

std::vector<std::string> cuda_device_descriptions() {
  std::vector<std::string> descriptions;
  for (int index = 0; index < cuda_device_count(); ++index) {
    descriptions.push_back(cuda::describe_device(index));
  }
  return descriptions;
}

std::vector<std::pair<std::string, std::string>> cuda_library_versions() {
  return cuda::library_versions();
}

void cuda_select_device(int index) { cuda::select_device(index); }

Device resolve_device(DeviceRequest request) {
  if (request == DeviceRequest::cpu) return Device::cpu;
  const CudaStatus status = cuda_status();
  if (status.available) return Device::cuda;
  if (request == DeviceRequest::automatic) return Device::cpu;
  throw BadInput(fmt::format("[device] cuda: not available: {}", status.detail));
}

void* device_allocate(Device device, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  return device == Device::cuda ? cuda::allocate(bytes) : allocate_on_cpu(bytes);
}

void device_free(Device device, void* pointer) noexcept {
  if (pointer == nullptr) return;
  if (device == Device::cuda) {
    cuda::release(pointer);
  } else {
    std::free(pointer);
  }
}

void device_copy(Device to_device, void* to, Device from_device, const void* from,
                 std::size_t bytes) {
  if (bytes == 0) return;
  if (to_device == Device::cpu && from_device == Device::cpu) {
    std::memcpy(to, from, bytes);
  } else {
    cuda::copy(to_device, to, from_device, from, bytes);
  }
}

void device_wait(Device device) {
  if (device == Device::cuda) cuda::wait();
}

Replay::Replay(Device device, std::function<void()> work) {
  if (device == Device::cuda) {
    graph_ = cuda::capture(work);
  } else {
    work_ = std::move(work);
  }
}

Replay::~Replay() = default;
Replay::Replay(Replay&&) noexcept = default;
Replay& Replay::operator=(Replay&&) noexcept = default;

void Replay::run() {
  if (graph_ != nullptr) {
    graph_->launch();
  } else {
    work_();
  }
}

}  // namespace vla_bench
