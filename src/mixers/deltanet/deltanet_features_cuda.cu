#include "core/cuda/check.h"
#include "mixers/cuda/features.cuh"
#include "mixers/cuda/head_size.h"
#include "mixers/deltanet/deltanet_features_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

__device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

/// x <- unit(x); returns |x|.
template <int N>
__device__ float make_unit(float (&x)[N]) {
  const float norm = share_norm(x);
  const float scale = 1.0F / at_least(norm, kSmallestNorm);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] *= scale;
  return norm;
}

/// x <- phi(x). Both maps used with unit() take 0 to 0: channels that do not exist stay 0.
template <int N>
__device__ void map_share(FeatureMap map, float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = apply_feature_map(map, x[i]);
}
template <int N>
__device__ void map_share_backward(FeatureMap map, const float (&x)[N], float (&dy)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) dy[i] = feature_map_backward(map, x[i], dy[i]);
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    deltanet_features_kernel(const DeltaNetFeatures args) {
  const WarpToken at = WarpToken::here(args.dims);
  if (!at.valid) return;
  float query[kShare<D>], key[kShare<D>];
  load_share<D>(at.of(args.q), at.width, query);
  load_share<D>(at.of(args.k), at.width, key);
  if (args.variant == DeltaNetVariant::paper) {
    map_share(FeatureMap::elu1, query);
    float gate[kShare<D>];
    load_share<D>(at.of(args.aux), at.width, gate);
#pragma unroll
    for (int i = 0; i < kShare<D>; ++i) gate[i] = sigmoid(gate[i]);
    store_share<D>(at.of(args.gate), at.width, gate);
    make_unit(key);
  } else {
    map_share(FeatureMap::silu, query);
    make_unit(query);
    map_share(FeatureMap::silu, key);
    make_unit(key);
    const float strength = sigmoid(*at.of(args.aux));
    float write[kShare<D>];
#pragma unroll
    for (int i = 0; i < kShare<D>; ++i) write[i] = strength * key[i];
    store_share<D>(at.of(args.write), at.width, write);
  }
  store_share<D>(at.of(args.query), at.width, query);
  store_share<D>(at.of(args.key), at.width, key);
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    deltanet_feature_gradients_kernel(const DeltaNetFeatureGradients args) {
  constexpr int N = kShare<D>;
  const WarpToken at = WarpToken::here(args.dims);
  if (!at.valid) return;
  float q[N], k[N], dquery[N], dkey[N], dwrite[N];
  load_share<D>(at.of(args.q), at.width, q);
  load_share<D>(at.of(args.k), at.width, k);
  load_share<D>(at.of(args.dquery), at.width, dquery);
  load_share<D>(at.of(args.dread), at.width, dkey);
  load_share<D>(at.of(args.dwrite), at.width, dwrite);
  if (args.variant == DeltaNetVariant::paper) {
    map_share_backward(FeatureMap::elu1, q, dquery);
#pragma unroll
    for (int i = 0; i < N; ++i) dkey[i] += dwrite[i];
    const float norm = make_unit(k);
    unit_backward(k, norm, dkey);
    float gate[N], dgate[N];
    load_share<D>(at.of(args.aux), at.width, gate);
    load_share<D>(at.of(args.dgate), at.width, dgate);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float g = sigmoid(gate[i]);
      dgate[i] *= g * (1.0F - g);
    }
    store_share<D>(at.of(args.daux), at.width, dgate);
  } else {
    float unit[N];
#pragma unroll
    for (int i = 0; i < N; ++i) unit[i] = q[i];
    map_share(FeatureMap::silu, unit);
    const float q_norm = make_unit(unit);
    unit_backward(unit, q_norm, dquery);
    map_share_backward(FeatureMap::silu, q, dquery);

#pragma unroll
    for (int i = 0; i < N; ++i) unit[i] = k[i];
    map_share(FeatureMap::silu, unit);
    const float k_norm = make_unit(unit);
    const float strength = sigmoid(*at.of(args.aux));
    const float dstrength = share_dot(dwrite, unit);
    if (threadIdx.x % kLanesOfWarp == 0) {
      *at.of(args.daux) = dstrength * strength * (1.0F - strength);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) dkey[i] = fmaf(strength, dwrite[i], dkey[i]);
    unit_backward(unit, k_norm, dkey);
    map_share_backward(FeatureMap::silu, k, dkey);
  }
  store_share<D>(at.of(args.dq), at.width, dquery);
  store_share<D>(at.of(args.dk), at.width, dkey);
}

}  // namespace

void deltanet_features(cudaStream_t stream, const DeltaNetFeatures& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    deltanet_features_kernel<d><<<feature_blocks(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("deltanet_features_kernel");
}

void deltanet_feature_gradients(cudaStream_t stream, const DeltaNetFeatureGradients& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    deltanet_feature_gradients_kernel<d>
        <<<feature_blocks(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("deltanet_feature_gradients_kernel");
}

}  // namespace vla_bench::mixers::cuda
