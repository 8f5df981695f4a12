#include "core/cuda/check.h"
#include "mixers/cuda/features.cuh"
#include "mixers/cuda/head_size.h"
#include "mixers/vla/vla_features_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

/// f = phi(kappa), k = unit(f); returns |f|.
template <int N>
__device__ float key_features(FeatureMap map, const float (&kappa)[N], int width, float (&f)[N],
                              float (&k)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    // Channels beyond the width do not exist: phi(0) is not 0.
    const bool exists = static_cast<int>(threadIdx.x) % kLanesOfWarp + kLanesOfWarp * i < width;
    f[i] = exists ? apply_feature_map(map, kappa[i]) : 0.0F;
  }
  const float norm = share_norm(f);
  const float scale = 1.0F / at_least(norm, kSmallestNorm);
#pragma unroll
  for (int i = 0; i < N; ++i) k[i] = f[i] * scale;
  return norm;
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads) vla_features_kernel(const VlaFeatures args) {
  const WarpToken at = WarpToken::here(args.dims);
  if (!at.valid) return;
  const VlaFeatureSettings& settings = args.settings;
  float raw[kShare<D>], f[kShare<D>], k[kShare<D>];
  load_share<D>(at.of(args.q), at.width, raw);
#pragma unroll
  for (int i = 0; i < kShare<D>; ++i) raw[i] = apply_feature_map(settings.feature_map, raw[i]);
  store_share<D>(at.of(args.query), at.width, raw);
  load_share<D>(at.of(args.kappa), at.width, raw);
  key_features(settings.feature_map, raw, at.width, f, k);
  store_share<D>(at.of(args.f), at.width, f);
  store_share<D>(at.of(args.k), at.width, k);
  switch (settings.penalty) {
    case Penalty::learned: {
      load_share<D>(at.of(args.aux), at.width, raw);
      const float scale = settings.u_scale / at_least(share_norm(raw), kSmallestNorm);
#pragma unroll
      for (int i = 0; i < kShare<D>; ++i) raw[i] *= scale;
      store_share<D>(at.of(args.u), at.width, raw);
      break;
    }
    case Penalty::key:
#pragma unroll
      for (int i = 0; i < kShare<D>; ++i) raw[i] = settings.u_scale * k[i];
      store_share<D>(at.of(args.u), at.width, raw);
      break;
    case Penalty::frozen: {
#pragma unroll
      for (int i = 0; i < kShare<D>; ++i) raw[i] = settings.inverse_lambda * k[i];  // b
      if (settings.unit_write) {
        const float scale = 1.0F / at_least(share_norm(raw), kSmallestNorm);
#pragma unroll
        for (int i = 0; i < kShare<D>; ++i) raw[i] *= scale;
      }
      store_share<D>(at.of(args.a), at.width, raw);
      break;
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    vla_feature_gradients_kernel(const VlaFeatureGradients args) {
  constexpr int N = kShare<D>;
  const WarpToken at = WarpToken::here(args.dims);
  if (!at.valid) return;
  const VlaFeatureSettings& settings = args.settings;

  float raw[N], gradient[N] = {};
  load_share<D>(at.of(args.q), at.width, raw);
  add_share<D>(at, args.dquery[0], gradient);
  add_share<D>(at, args.dquery[1], gradient);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    gradient[i] = feature_map_backward(settings.feature_map, raw[i], gradient[i]);
  }
  store_share<D>(at.of(args.dq), at.width, gradient);

  float f[N], k[N], dk[N] = {};
  load_share<D>(at.of(args.kappa), at.width, raw);
  const float f_norm = key_features(settings.feature_map, raw, at.width, f, k);
  add_share<D>(at, args.dk[0], dk);
  add_share<D>(at, args.dk[1], dk);

  if (settings.penalty == Penalty::frozen) {
    // b = k / lambda_0, a = unit(b) or b.
    float da[N] = {};
    add_share<D>(at, args.da[0], da);
    add_share<D>(at, args.da[1], da);
    if (settings.unit_write) {
      float b[N];
#pragma unroll
      for (int i = 0; i < N; ++i) b[i] = settings.inverse_lambda * k[i];
      const float b_norm = share_norm(b);
      const float scale = 1.0F / at_least(b_norm, kSmallestNorm);
#pragma unroll
      for (int i = 0; i < N; ++i) b[i] *= scale;
      unit_backward(b, b_norm, da);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) dk[i] = fmaf(settings.inverse_lambda, da[i], dk[i]);
  } else {
    float du[N], w[N];
    load_share<D>(at.of(args.du), at.width, du);
    load_share<D>(at.of(args.w), at.width, w);
    const float d_delta =
        args.d_delta[at.scalar] * sqrtf(at_least(args.delta[at.scalar], settings.stab_eps));
#pragma unroll
    for (int i = 0; i < N; ++i) du[i] = settings.u_scale * fmaf(d_delta, w[i], du[i]);
    if (settings.penalty == Penalty::key) {
#pragma unroll
      for (int i = 0; i < N; ++i) dk[i] += du[i];
    } else {
      float aux[N];
      load_share<D>(at.of(args.aux), at.width, aux);
      const float norm = share_norm(aux);
      const float scale = 1.0F / at_least(norm, kSmallestNorm);
#pragma unroll
      for (int i = 0; i < N; ++i) aux[i] *= scale;
      unit_backward(aux, norm, du);
      store_share<D>(at.of(args.daux), at.width, du);
    }
  }

  unit_backward(k, f_norm, dk);
  add_share<D>(at, args.df, dk);
#pragma unroll
  for (int i = 0; i < N; ++i) dk[i] = feature_map_backward(settings.feature_map, raw[i], dk[i]);
  store_share<D>(at.of(args.dkappa), at.width, dk);
}

}  // namespace

void vla_features(cudaStream_t stream, const VlaFeatures& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    vla_features_kernel<d><<<feature_blocks(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("vla_features_kernel");
}

void vla_feature_gradients(cudaStream_t stream, const VlaFeatureGradients& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    vla_feature_gradients_kernel<d>
        <<<feature_blocks(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("vla_feature_gradients_kernel");
}

}  // namespace vla_bench::mixers::cuda
