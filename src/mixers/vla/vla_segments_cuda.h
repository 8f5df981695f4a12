// Where each segment of vla_chunked_cuda.h begins: 12 and 13 of vla_chunked.h, of one head size.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/vla/vla_chunked_cuda.h"

namespace vla_bench::mixers::cuda {

struct SegmentArgs;

/// 12: elements (lanes, segments - 1, 3, D, D) of every segment but the first and the last, and A
/// behind the first segment into entries (lanes, segments, D, D).
template <int D>
void find_elements(cudaStream_t stream, const HeadDims& dims, const SegmentArgs& args,
                   float* entries, float* elements);

/// 13: A at the entry of every segment but the first into workspace (lanes, segments, D, D); behind
/// it there lie the elements, elements_size floats. Everything is of grade float32: where keys are
/// alike, TF32 in elements costs two digits of a more than TF32 in the recurrence does.
template <int D>
void find_segment_entries(cudaStream_t stream, const HeadDims& dims, const SegmentArgs& args,
                          float* workspace);
Index elements_size(const HeadDims& dims, int segments);

}  // namespace vla_bench::mixers::cuda
