#include "core/cuda/check.h"
#include "mixers/cuda/features.cuh"
#include "mixers/deltanet/deltanet_features_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

__device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

/// x <- phi(x). Both maps used with unit() take 0 to 0: channels that do not exist stay 0.
__device__ void map_share(FeatureMap map, Share& x) {
#pragma unroll
  for (int i = 0; i < kShare; ++i) x[i] = apply_feature_map(map, x[i]);
}
__device__ void map_share_backward(FeatureMap map, const Share& x, Share& dy) {
#pragma unroll
  for (int i = 0; i < kShare; ++i) dy[i] = feature_map_backward(map, x[i], dy[i]);
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    deltanet_features_kernel(const DeltaNetFeatures args) {
  const TokenLanes<D> at(args.dims);
  Share query, key;
  at.load(args.q, query);
  at.load(args.k, key);
  if (args.variant == DeltaNetVariant::paper) {
    map_share(FeatureMap::elu1, query);
    Share gate;
    at.load(args.aux, gate);
#pragma unroll
    for (int i = 0; i < kShare; ++i) gate[i] = sigmoid(gate[i]);
    at.store(args.gate, gate);
    at.make_unit(key);
  } else {
    map_share(FeatureMap::silu, query);
    at.make_unit(query);
    map_share(FeatureMap::silu, key);
    at.make_unit(key);
    const float strength = sigmoid(*at.of(args.aux));
    Share write;
#pragma unroll
    for (int i = 0; i < kShare; ++i) write[i] = strength * key[i];
    at.store(args.write, write);
  }
  at.store(args.query, query);
  at.store(args.key, key);
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    deltanet_feature_gradients_kernel(const DeltaNetFeatureGradients args) {
  const TokenLanes<D> at(args.dims);
  Share q, k, dquery, dkey, dwrite;
  at.load(args.q, q);
  at.load(args.k, k);
  at.load(args.dquery, dquery);
  at.load(args.dread, dkey);
  at.load(args.dwrite, dwrite);
  if (args.variant == DeltaNetVariant::paper) {
    map_share_backward(FeatureMap::elu1, q, dquery);
#pragma unroll
    for (int i = 0; i < kShare; ++i) dkey[i] += dwrite[i];
    const float norm = at.make_unit(k);
    at.unit_backward(k, norm, dkey);
    Share gate, dgate;
    at.load(args.aux, gate);
    at.load(args.dgate, dgate);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const float g = sigmoid(gate[i]);
      dgate[i] *= g * (1.0F - g);
    }
    at.store(args.daux, dgate);
  } else {
    Share unit;
#pragma unroll
    for (int i = 0; i < kShare; ++i) unit[i] = q[i];
    map_share(FeatureMap::silu, unit);
    const float q_norm = at.make_unit(unit);
    at.unit_backward(unit, q_norm, dquery);
    map_share_backward(FeatureMap::silu, q, dquery);

#pragma unroll
    for (int i = 0; i < kShare; ++i) unit[i] = k[i];
    map_share(FeatureMap::silu, unit);
    const float k_norm = at.make_unit(unit);
    const float strength = sigmoid(*at.of(args.aux));
    const float dstrength = at.dot(dwrite, unit);
    if (at.writes_scalars()) {
      *at.of(args.daux) = dstrength * strength * (1.0F - strength);
    }
#pragma unroll
    for (int i = 0; i < kShare; ++i) dkey[i] = fmaf(strength, dwrite[i], dkey[i]);
    at.unit_backward(unit, k_norm, dkey);
    map_share_backward(FeatureMap::silu, k, dkey);
  }
  at.store(args.dq, dquery);
  at.store(args.dk, dkey);
}

}  // namespace

void deltanet_features(cudaStream_t stream, const DeltaNetFeatures& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    deltanet_features_kernel<d><<<feature_blocks<d>(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("deltanet_features_kernel");
}

void deltanet_feature_gradients(cudaStream_t stream, const DeltaNetFeatureGradients& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    deltanet_feature_gradients_kernel<d>
        <<<feature_blocks<d>(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("deltanet_feature_gradients_kernel");
}

}  // namespace vla_bench::mixers::cuda
