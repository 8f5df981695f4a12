// Step 1 of linear.h on a GPU and its backward. Views (B, T, H, d).
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/token_view.h"

namespace vla_bench::mixers::cuda {

struct LinearFeatures {
  HeadDims dims;
  TokenView<const float> q, k;  // raw
  TokenView<float> p, f;
};
void linear_features(cudaStream_t stream, const LinearFeatures& args);

/// From the sums of both parts of dp and df.
struct LinearFeatureGradients {
  HeadDims dims;
  TokenView<const float> q, k;  // raw
  TokenView<const float> dp[2], df[2];
  TokenView<float> dq, dk;
};
void linear_feature_gradients(cudaStream_t stream, const LinearFeatureGradients& args);

}  // namespace vla_bench::mixers::cuda
