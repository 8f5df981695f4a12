#include "core/run_ahead.h"

#include "core/cuda_run_ahead.h"

namespace vla_bench {

RunAhead::RunAhead(Device device) {
  if (device == Device::cuda) marks_ = cuda::make_marks();
}

RunAhead::~RunAhead() = default;

void RunAhead::launched() {
  if (marks_ != nullptr) marks_->mark_and_wait();
}

}  // namespace vla_bench
