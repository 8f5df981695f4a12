// The CUDA side of core/run_ahead.h. In a build without CUDA make_marks throws RunError.
#pragma once

#include <memory>

#include "core/run_ahead.h"

namespace vla_bench::cuda {

std::unique_ptr<RunAhead::Marks> make_marks();

}  // namespace vla_bench::cuda
