// Step (1) of vla.h on a GPU and its backward. Views (B, T, H, d), scalars (B, T, H).
#pragma once

#include <cuda_runtime_api.h>

#include "config/config.h"
#include "mixers/recurrence/token_view.h"

namespace vla_bench::mixers::cuda {

struct VlaFeatureSettings {
  FeatureMap feature_map = FeatureMap::elu1;
  Penalty penalty = Penalty::learned;
  float u_scale = 0.0F;
  bool unit_write = true;       // penalty frozen alone
  float inverse_lambda = 0.0F;  // the same
  float stab_eps = 0.0F;
};

struct VlaFeatures {
  HeadDims dims;
  VlaFeatureSettings settings;
  TokenView<const float> q, kappa, aux;  // raw; aux is empty unless penalty is learned
  TokenView<float> query, f, k;          // q', f, k
  TokenView<float> u;                    // penalty frozen: empty
  TokenView<float> a;                    // penalty frozen: b = k / lambda_0 or its unit; else empty
};
void vla_features(cudaStream_t stream, const VlaFeatures& args);

struct VlaFeatureGradients {
  HeadDims dims;
  VlaFeatureSettings settings;
  TokenView<const float> q, kappa, aux;  // as above
  // What came back, summed here; empty ones are left out.
  TokenView<const float> dquery[2];
  TokenView<const float> df;
  TokenView<const float> dk[2];
  TokenView<const float> da[2];    // penalty frozen: through b to k
  TokenView<const float> du;       // A_{t-1} dw
  TokenView<const float> w;        // w^
  const float* d_delta = nullptr;  // du += d_delta w, w = w^ sqrt(max(delta, stab_eps))
  const float* delta = nullptr;
  TokenView<float> dq, dkappa, daux;
};
void vla_feature_gradients(cudaStream_t stream, const VlaFeatureGradients& args);

}  // namespace vla_bench::mixers::cuda
