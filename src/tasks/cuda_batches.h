// BatchMaker on a GPU. A build without CUDA links no_cuda/batches_no_cuda.cpp.
#pragma once

#include <memory>

#include "tasks/batch.h"

namespace vla_bench::tasks {

/// Throws RunError in a build without CUDA.
std::unique_ptr<BatchMaker::Implementation> make_cuda_batch_maker(const RunConfig& config);

}  // namespace vla_bench::tasks
