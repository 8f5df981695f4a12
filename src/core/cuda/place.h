// Where the calling thread's work goes: a GPU, a stream on it, and further streams for work put
// aside. For files that a build without CUDA leaves out.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>
#include <vector>

namespace vla_bench::cuda {

/// What is put aside; each kind has a stream of its own, so that none waits for another.
enum class Aside { products, sums, batches };
inline constexpr int kAsides = 3;

/// Held while work is recorded, and while memory, streams and libraries' handles come and go: a
/// worker that ends and gives its handles back would else invalidate what another one records.
/// Recursive: what a recording must not do is still an error of its own, not a deadlock.
[[nodiscard]] std::unique_lock<std::recursive_mutex> exclude_recordings();

class Place {
 public:
  explicit Place(int device);
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  int device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  /// Multiprocessors of the GPU.
  int multiprocessors() const { return multiprocessors_; }

  /// The stream for work that may run beside what is asked of stream() next. It starts behind
  /// everything asked of stream() so far, and behind earlier work of its kind.
  cudaStream_t fork_aside(Aside kind);
  /// What is asked of stream() next waits for all work put aside.
  void join_aside();

  /// Memory for partial results of one operation, at least `bytes`, contents unspecified but for
  /// their start: the first kCounterBytes are zero, and whoever changes them sets them back (the
  /// blocks of a kernel count themselves there). One for each stream: operations on a stream follow
  /// each other. Grows while nothing is recorded; what a recording holds stays valid.
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
  struct AsideStream {
    cudaStream_t stream = nullptr;
    cudaEvent_t joined = nullptr;
    bool busy = false;
    Scratch scratch;
  };
  AsideStream asides_[kAsides];
  std::vector<void*> outgrown_;  // scratch that recordings may still hold
};

/// The calling thread's place, made on first use on the GPU that cuda_select_device named.
Place& place();

}  // namespace vla_bench::cuda
