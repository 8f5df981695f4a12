// Packed bfloat16 copies of a core's tensors, and back.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "mixers/heads.h"

namespace vla_bench::mixers {

/// to[((b T + t) H + h) d + i], rounded to nearest. `to` holds the bits of bfloat16 numbers.
void pack_bf16(cudaStream_t stream, const HeadDims& dims, HeadView<const float> from,
               std::uint16_t* to);
void unpack_bf16(cudaStream_t stream, const HeadDims& dims, const std::uint16_t* from,
                 HeadView<float> to);

}  // namespace vla_bench::mixers
