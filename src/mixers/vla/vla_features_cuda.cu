#include "core/cuda/check.h"
#include "mixers/cuda/features.cuh"
#include "mixers/vla/vla_features_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

/// f = phi(kappa), k = unit(f); returns |f|.
template <int D>
__device__ float key_features(const TokenLanes<D>& at, FeatureMap map, const Share& kappa, Share& f,
                              Share& k) {
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    // Channels that do not exist stay 0: phi(0) need not be.
    f[i] = k[i] = at.exists() ? apply_feature_map(map, kappa[i]) : 0.0F;
  }
  return at.make_unit(k);
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads) vla_features_kernel(const VlaFeatures args) {
  const TokenLanes<D> at(args.dims);
  const VlaFeatureSettings& settings = args.settings;
  Share raw, f, k;
  at.load(args.q, raw);
#pragma unroll
  for (int i = 0; i < kShare; ++i) raw[i] = apply_feature_map(settings.feature_map, raw[i]);
  at.store(args.query, raw);
  at.load(args.kappa, raw);
  key_features(at, settings.feature_map, raw, f, k);
  at.store(args.f, f);
  at.store(args.k, k);
  switch (settings.penalty) {
    case Penalty::learned: {
      at.load(args.aux, raw);
      const float scale = settings.u_scale / at_least(at.norm(raw), kSmallestNorm);
#pragma unroll
      for (int i = 0; i < kShare; ++i) raw[i] *= scale;
      at.store(args.u, raw);
      break;
    }
    case Penalty::key:
#pragma unroll
      for (int i = 0; i < kShare; ++i) raw[i] = settings.u_scale * k[i];
      at.store(args.u, raw);
      break;
    case Penalty::frozen: {
#pragma unroll
      for (int i = 0; i < kShare; ++i) raw[i] = settings.inverse_lambda * k[i];  // b
      if (settings.unit_write) at.make_unit(raw);
      at.store(args.a, raw);
      break;
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    vla_feature_gradients_kernel(const VlaFeatureGradients args) {
  const TokenLanes<D> at(args.dims);
  const VlaFeatureSettings& settings = args.settings;

  Share raw, gradient = {};
  at.load(args.q, raw);
  at.add(args.dquery[0], gradient);
  at.add(args.dquery[1], gradient);
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    gradient[i] = feature_map_backward(settings.feature_map, raw[i], gradient[i]);
  }
  at.store(args.dq, gradient);

  Share f, k, dk = {};
  at.load(args.kappa, raw);
  const float f_norm = key_features(at, settings.feature_map, raw, f, k);
  at.add(args.dk[0], dk);
  at.add(args.dk[1], dk);

  if (settings.penalty == Penalty::frozen) {
    // b = k / lambda_0, a = unit(b) or b.
    Share da = {};
    at.add(args.da[0], da);
    at.add(args.da[1], da);
    if (settings.unit_write) {
      Share b;
#pragma unroll
      for (int i = 0; i < kShare; ++i) b[i] = settings.inverse_lambda * k[i];
      const float b_norm = at.make_unit(b);
      at.unit_backward(b, b_norm, da);
    }
#pragma unroll
    for (int i = 0; i < kShare; ++i) dk[i] = fmaf(settings.inverse_lambda, da[i], dk[i]);
  } else {
    Share du, w;
    at.load(args.du, du);
    at.load(args.w, w);
    const float d_delta =
        args.d_delta[at.scalar()] * sqrtf(at_least(args.delta[at.scalar()], settings.stab_eps));
#pragma unroll
    for (int i = 0; i < kShare; ++i) du[i] = settings.u_scale * fmaf(d_delta, w[i], du[i]);
    if (settings.penalty == Penalty::key) {
#pragma unroll
      for (int i = 0; i < kShare; ++i) dk[i] += du[i];
    } else {
      Share aux;
      at.load(args.aux, aux);
      const float norm = at.make_unit(aux);
      at.unit_backward(aux, norm, du);
      at.store(args.daux, du);
    }
  }

  at.unit_backward(k, f_norm, dk);
  at.add(args.df, dk);
#pragma unroll
  for (int i = 0; i < kShare; ++i)
    dk[i] = feature_map_backward(settings.feature_map, raw[i], dk[i]);
  at.store(args.dkappa, dk);
}

}  // namespace

void vla_features(cudaStream_t stream, const VlaFeatures& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    vla_features_kernel<d><<<feature_blocks<d>(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("vla_features_kernel");
}

void vla_feature_gradients(cudaStream_t stream, const VlaFeatureGradients& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    vla_feature_gradients_kernel<d>
        <<<feature_blocks<d>(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("vla_feature_gradients_kernel");
}

}  // namespace vla_bench::mixers::cuda
