#include "core/error.h"
#include "tasks/cuda_batches.h"

namespace vla_bench::tasks {

std::unique_ptr<BatchMaker::Implementation> make_cuda_batch_maker(const RunConfig&) {
  throw RunError("cuda: making batches is not part of this build");
}

}  // namespace vla_bench::tasks
