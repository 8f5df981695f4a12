// The calling thread's GPU, its main stream and its side streams. Only for files that are part of a
// CUDA build.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>
#include <vector>

namespace vla_bench::cuda {

/// Kinds of work that may run beside the main stream; each has its own stream, so they are
/// independent of one another.
enum class SideStream { products, sums, batches };
inline constexpr int kSideStreams = 3;

/// Held during CUDA graph capture, and while memory, streams and library handles are created or
/// destroyed: otherwise a worker that ends would invalidate another one's capture. Recursive, so
/// that a forbidden call inside a capture is reported as an error rather than a deadlock.
[[nodiscard]] std::unique_lock<std::recursive_mutex> exclude_captures();

class StreamContext {
 public:
  explicit StreamContext(int device);
  ~StreamContext();
  StreamContext(const StreamContext&) = delete;
  StreamContext& operator=(const StreamContext&) = delete;

  int device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  /// Multiprocessors of the GPU.
  int multiprocessors() const { return multiprocessors_; }

  /// The side stream of that kind. Its work starts after everything launched on stream() so far and
  /// after its own earlier work, and runs beside what is launched on stream() next.
  cudaStream_t fork_side_stream(SideStream kind);
  /// Makes what is launched on stream() next wait for all side streams.
  void join_side_streams();

  /// Memory for partial results of one operation, at least `bytes`. The first kCounterBytes are
  /// zero, and a kernel that counts its blocks there sets them back to zero; the rest is
  /// unspecified. One buffer per stream, since operations on a stream follow each other. Grows only
  /// outside a capture; buffers that captured graphs use stay valid.
  void* scratch(cudaStream_t stream, std::size_t bytes);
  static constexpr std::size_t kCounterBytes = 4096;

 private:
  struct Scratch {
    void* data = nullptr;
    std::size_t bytes = 0;
  };

  int device_;
  int multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;
  Scratch scratch_;
  cudaEvent_t forked_ = nullptr;
  struct Side {
    cudaStream_t stream = nullptr;
    cudaEvent_t joined = nullptr;
    bool busy = false;
    Scratch scratch;
  };
  Side sides_[kSideStreams];
  std::vector<void*> outgrown_;  // scratch that captured graphs may still use
};

/// The calling thread's context, made on first use on the GPU that cuda_select_device named.
StreamContext& stream_context();

}  // namespace vla_bench::cuda
