// Where each segment of vla_chunked_cuda.h begins: 12 and 13 of vla_chunked.h.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/vla/vla_chunked_cuda.h"

namespace vla_bench::mixers::cuda {

struct SegmentArgs;

/// A at the entry of every segment but the first into workspace (lanes, segments, D, D); what lies
/// behind it there, 3 times as much, holds elements.
void find_segment_entries(cudaStream_t stream, const HeadDims& dims, const SegmentArgs& args,
                          float* workspace);

}  // namespace vla_bench::mixers::cuda
