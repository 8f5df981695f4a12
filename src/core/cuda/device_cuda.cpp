// The CUDA side of core/device.h: memory from the driver's pool (freeing does not wait for the
// device), one stream per thread, CUDA graphs.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/cuda_device.h"
#include "core/error.h"

namespace vla_bench::cuda {
namespace {

thread_local int selected_device = 0;
thread_local std::unique_ptr<StreamContext> the_context;

/// Keeps freed memory in the pool: a sweep asks for the same sizes again and again.
void keep_pool_memory(int device) {
  cudaMemPool_t pool;
  VLA_CUDA(cudaDeviceGetDefaultMemPool(&pool, device));
  std::uint64_t threshold = UINT64_MAX;
  VLA_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
}

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

/// The CUDA version that the driver supports; 0 where there is no driver.
int driver_version() {
  int version = 0;
  VLA_CUDA(cudaDriverGetVersion(&version));
  return version;
}

int runtime_version() {
  int version = 0;
  VLA_CUDA(cudaRuntimeGetVersion(&version));
  return version;
}

/// Describes the first GPU and says how many there are.
std::string describe_all(int count) {
  return fmt::format("{}{}, CUDA driver {}, runtime {}",
                     count > 1 ? fmt::format("{} x ", count) : "", describe_device(0),
                     version_text(driver_version()), version_text(runtime_version()));
}

/// Why the runtime counted no GPU.
std::string why_none(cudaError_t error) {
  if (error == cudaSuccess) return "no GPU";
  if (error == cudaErrorInsufficientDriver) {
    const std::string needed = version_text(runtime_version());
    const int driver = driver_version();
    if (driver == 0) {
      return fmt::format("no CUDA driver on this machine (this binary needs one for CUDA {})",
                         needed);
    }
    return fmt::format("the CUDA driver is for CUDA {}, this binary needs {}", version_text(driver),
                       needed);
  }
  return cudaGetErrorString(error);
}

class CapturedGraph final : public Replay::Graph {
 public:
  explicit CapturedGraph(const std::function<void()>& work) : stream_(stream_context().stream()) {
    // Thread-local: other threads' work on their own streams does not end this capture.
    const auto lock = exclude_captures();
    VLA_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    VLA_CUDA(cudaStreamEndCapture(stream_, &graph));
    const cudaError_t error = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    VLA_CUDA(error);
    VLA_CUDA(cudaGraphUpload(executable_, stream_));
  }
  ~CapturedGraph() override {
    const auto lock = exclude_captures();
    // A failure to release is no worse than the failure that came before it.
    cudaGraphExecDestroy(executable_);
  }

  void launch() override { VLA_CUDA(cudaGraphLaunch(executable_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

void fail(cudaError_t error, const char* call) {
  // Clears errors that do not stick, so that the next cell starts clean.
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) {
    throw RunError(fmt::format("out of memory on the GPU ({})", call));
  }
  throw RunError(
      fmt::format("cuda: {}: {} ({})", call, cudaGetErrorString(error), cudaGetErrorName(error)));
}

std::string describe_device(int index) {
  cudaDeviceProp properties;
  VLA_CUDA(cudaGetDeviceProperties(&properties, index));
  return fmt::format("{}, {:.1f} GiB, compute capability {}.{}", properties.name,
                     static_cast<double>(properties.totalGlobalMem) * 0x1p-30, properties.major,
                     properties.minor);
}

std::unique_lock<std::recursive_mutex> exclude_captures() {
  static auto* const mutex = new std::recursive_mutex;  // outlives static arrays
  return std::unique_lock(*mutex);
}

StreamContext::StreamContext(int device) : device_(device) {
  const auto lock = exclude_captures();
  VLA_CUDA(cudaSetDevice(device));
  keep_pool_memory(device);
  VLA_CUDA(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device));
  VLA_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  VLA_CUDA(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming));
  for (Side& side : sides_) {
    VLA_CUDA(cudaStreamCreateWithFlags(&side.stream, cudaStreamNonBlocking));
    VLA_CUDA(cudaEventCreateWithFlags(&side.joined, cudaEventDisableTiming));
  }
}

// Runs at the end of a thread or of the program, when the driver may be gone: errors are ignored.
StreamContext::~StreamContext() {
  const auto lock = exclude_captures();
  const auto outgrow = [this](const Scratch& scratch) {
    if (scratch.data != nullptr) outgrown_.push_back(scratch.data);
  };
  outgrow(scratch_);
  for (Side& side : sides_) {
    outgrow(side.scratch);
    cudaEventDestroy(side.joined);
    cudaStreamDestroy(side.stream);
  }
  for (void* memory : outgrown_) cudaFreeAsync(memory, stream_);
  cudaEventDestroy(forked_);
  cudaStreamDestroy(stream_);
}

cudaStream_t StreamContext::fork_side_stream(SideStream kind) {
  Side& side = sides_[static_cast<int>(kind)];
  VLA_CUDA(cudaEventRecord(forked_, stream_));
  VLA_CUDA(cudaStreamWaitEvent(side.stream, forked_, 0));
  side.busy = true;
  return side.stream;
}

void StreamContext::join_side_streams() {
  for (Side& side : sides_) {
    if (!side.busy) continue;
    VLA_CUDA(cudaEventRecord(side.joined, side.stream));
    VLA_CUDA(cudaStreamWaitEvent(stream_, side.joined, 0));
    side.busy = false;
  }
}

void* StreamContext::scratch(cudaStream_t stream, std::size_t bytes) {
  Scratch* found = &scratch_;
  for (Side& side : sides_) {
    if (side.stream == stream) found = &side.scratch;
  }
  Scratch& scratch = *found;
  if (scratch.bytes < bytes) {
    const auto lock = exclude_captures();
    cudaStreamCaptureStatus status;
    VLA_CUDA(cudaStreamIsCapturing(stream, &status));
    if (status != cudaStreamCaptureStatusNone) {
      throw RunError(
          "cuda: scratch memory grew during CUDA graph capture; run the work once before it");
    }
    // Grows by half, since sizes creep up as a model's layers are visited, and to 1 MiB at least:
    // an operation that first runs during a capture (the optimiser's, 12 KiB) then fits.
    constexpr std::size_t kLeastBytes = std::size_t{1} << 20;
    const std::size_t grown = std::max(bytes + bytes / 2 + kCounterBytes, kLeastBytes);
    // Growing by half, the outgrown buffers add up to at most twice the one in use.
    if (scratch.data != nullptr) outgrown_.push_back(scratch.data);
    scratch = {};
    VLA_CUDA(cudaMallocAsync(&scratch.data, grown, stream));
    scratch.bytes = grown;
    VLA_CUDA(cudaMemsetAsync(scratch.data, 0, kCounterBytes, stream));
  }
  return scratch.data;
}

StreamContext& stream_context() {
  if (the_context == nullptr) the_context = std::make_unique<StreamContext>(selected_device);
  return *the_context;
}

CudaStatus status() {
  static const CudaStatus answer = [] {
    CudaStatus status{.built = true, .available = false, .detail = {}};
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
      status.detail = why_none(error);
    } else if (const cudaError_t loaded = find_code(); loaded != cudaSuccess) {
      status.detail = fmt::format("{}: no kernels for it in this binary ({})", describe_all(count),
                                  cudaGetErrorString(loaded));
    } else {
      status.available = true;
      status.detail = describe_all(count);
    }
    cudaGetLastError();
    return status;
  }();
  return answer;
}

void* allocate(std::size_t bytes) {
  const auto lock = exclude_captures();
  const cudaStream_t stream = stream_context().stream();
  cudaStreamCaptureStatus status;
  VLA_CUDA(cudaStreamIsCapturing(stream, &status));
  if (status != cudaStreamCaptureStatusNone) {
    throw RunError("cuda: memory grew during CUDA graph capture; run the work once before it");
  }
  void* pointer = nullptr;
  const cudaError_t error = cudaMallocAsync(&pointer, bytes, stream);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw RunError(fmt::format("out of memory on the GPU: {} bytes ({:.2f} GiB) cannot be had",
                               bytes, static_cast<double>(bytes) * 0x1p-30));
  }
  VLA_CUDA(error);
  VLA_CUDA(cudaMemsetAsync(pointer, 0, bytes, stream));
  return pointer;
}

void release(void* pointer) noexcept {
  const auto lock = exclude_captures();
  // Static arrays outlive the main thread's context: they are freed on the default stream.
  cudaFreeAsync(pointer, the_context != nullptr ? the_context->stream() : nullptr);
}

void copy(Device to_device, void* to, Device from_device, const void* from, std::size_t bytes) {
  const cudaStream_t stream = stream_context().stream();
  const cudaMemcpyKind kind = to_device == Device::cpu     ? cudaMemcpyDeviceToHost
                              : from_device == Device::cpu ? cudaMemcpyHostToDevice
                                                           : cudaMemcpyDeviceToDevice;
  VLA_CUDA(cudaMemcpyAsync(to, from, bytes, kind, stream));
  VLA_CUDA(cudaStreamSynchronize(stream));
}

int device_count() {
  if (!status().available) return 0;
  int count = 0;
  VLA_CUDA(cudaGetDeviceCount(&count));
  return count;
}

void select_device(int index) {
  if (the_context != nullptr && the_context->device() == index) return;
  the_context.reset();
  selected_device = index;
  VLA_CUDA(cudaSetDevice(index));
}

void wait() { VLA_CUDA(cudaStreamSynchronize(stream_context().stream())); }

std::unique_ptr<Replay::Graph> capture(const std::function<void()>& work) {
  return std::make_unique<CapturedGraph>(work);
}

}  // namespace vla_bench::cuda
