#include <cuda_runtime_api.h>

#include <array>
#include <memory>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/cuda_run_ahead.h"

namespace vla_bench::cuda {
namespace {

/// Events behind the last three pieces of work.
class EventMarks final : public RunAhead::Marks {
 public:
  EventMarks() {
    const auto lock = exclude_captures();
    for (cudaEvent_t& event : events_) {
      // Blocking: a thread that waits leaves its core to others.
      VLA_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
    }
  }
  ~EventMarks() override {
    const auto lock = exclude_captures();
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }

  void mark_and_wait() override {
    VLA_CUDA(cudaEventRecord(events_[next_], stream_context().stream()));
    next_ = (next_ + 1) % events_.size();
    // The oldest; in the first calls it was never recorded, which counts as done.
    VLA_CUDA(cudaEventSynchronize(events_[next_]));
  }

 private:
  std::array<cudaEvent_t, 3> events_{};
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<RunAhead::Marks> make_marks() { return std::make_unique<EventMarks>(); }

}  // namespace vla_bench::cuda
