#include "core/cuda/check.h"
#include "mixers/cuda/features.cuh"
#include "mixers/linear/linear_features_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

template <int D>
__device__ void map_token(const TokenLanes<D>& at, const TokenView<const float>& from,
                          const TokenView<float>& to) {
  Share x;
  at.load(from, x);
#pragma unroll
  for (int i = 0; i < kShare; ++i) x[i] = apply_feature_map(FeatureMap::elu1, x[i]);
  at.store(to, x);
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    linear_features_kernel(const LinearFeatures args) {
  const TokenLanes<D> at(args.dims);
  map_token<D>(at, args.q, args.p);
  map_token<D>(at, args.k, args.f);
}

template <int D>
__device__ void map_backward(const TokenLanes<D>& at, const TokenView<const float>& raw,
                             const TokenView<const float> (&parts)[2], const TokenView<float>& to) {
  Share x, dy = {};
  at.load(raw, x);
  at.add(parts[0], dy);
  at.add(parts[1], dy);
#pragma unroll
  for (int i = 0; i < kShare; ++i) dy[i] = feature_map_backward(FeatureMap::elu1, x[i], dy[i]);
  at.store(to, dy);
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    linear_feature_gradients_kernel(const LinearFeatureGradients args) {
  const TokenLanes<D> at(args.dims);
  map_backward<D>(at, args.q, args.dp, args.dq);
  map_backward<D>(at, args.k, args.df, args.dk);
}

}  // namespace

void linear_features(cudaStream_t stream, const LinearFeatures& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    linear_features_kernel<d><<<feature_blocks<d>(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("linear_features_kernel");
}

void linear_feature_gradients(cudaStream_t stream, const LinearFeatureGradients& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    linear_feature_gradients_kernel<d>
        <<<feature_blocks<d>(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("linear_feature_gradients_kernel");
}

}  // namespace vla_bench::mixers::cuda
