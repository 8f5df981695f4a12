// Step 1 of deltanet.h on a GPU and its backward. Views (B, T, H, d); aux of the standard variant
// (B, T, H, 1).
#pragma once

#include <cuda_runtime_api.h>

#include "config/config.h"
#include "mixers/recurrence/token_view.h"

namespace vla_bench::mixers::cuda {

struct DeltaNetFeatures {
  HeadDims dims;
  DeltaNetVariant variant = DeltaNetVariant::paper;
  TokenView<const float> q, k, aux;  // raw
  TokenView<float> query, key;       // q', k'
  TokenView<float> gate;             // paper: g
  TokenView<float> write;            // standard: b k', what is written along
};
void deltanet_features(cudaStream_t stream, const DeltaNetFeatures& args);

struct DeltaNetFeatureGradients {
  HeadDims dims;
  DeltaNetVariant variant = DeltaNetVariant::paper;
  TokenView<const float> q, k, aux;
  TokenView<const float> dquery;
  TokenView<const float> dread;   // of k' as read with
  TokenView<const float> dwrite;  // of k' (paper) or b k' (standard) as written along
  TokenView<const float> dgate;   // paper
  TokenView<float> dq, dk, daux;
};
void deltanet_feature_gradients(cudaStream_t stream, const DeltaNetFeatureGradients& args);

}  // namespace vla_bench::mixers::cuda
