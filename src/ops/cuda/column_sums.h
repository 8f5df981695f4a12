// Column sums for bias gradients.
#pragma once

#include <cuda_runtime_api.h>

#include "core/array.h"

namespace vla_bench::ops::cuda {

/// sums[j] += sum_i x[i][j], in double and in a fixed order: some biases have gradients that vanish
/// identically (the key bias of softmax attention), and Adam magnifies the rounding noise of their
/// sums. x: (M, N), sums: (N).
void add_column_sums(cudaStream_t stream, Matrix<const float> x, float* sums);

}  // namespace vla_bench::ops::cuda
