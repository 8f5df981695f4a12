// Shared by the float32 kernels of the backward; the numbers are the steps of softmax.h.
#pragma once

#include "mixers/softmax/softmax_fma.cuh"

namespace vla_bench::mixers::softmax::cuda {

/// Step 2 of one pair: `product` = q . k becomes the weight, `dp` the gradient of the score.
/// No product here may be fused with a sum, so that every kernel and role rounds in the same way.
__device__ inline void differentiate(bool visible, const QueryTerms& query, float exponent_scale,
                                     float& product, float& dp) {
  const float exponential = exp2_approximate(fmaf(product, exponent_scale, -query.shift));
  product = visible ? __fmul_rn(exponential, query.scale) : 0.0F;
  dp = __fmul_rn(product, __fsub_rn(dp, query.delta));
}

/// sum + x . y
__device__ inline float add_dot(const float4& x, const float4& y, float sum) {
  return fmaf(x.x, y.x, fmaf(x.y, y.y, fmaf(x.z, y.z, fmaf(x.w, y.w, sum))));
}

/// Writes scale * (sums - rest * row) to the token's gradient; `row` returns the row's four
/// channels from a channel on.
template <class Tiles, class Row>
__device__ inline void write_corrected(const float4 (&sums)[Tiles::kQuads], float scale, float rest,
                                       const Row& row, const LaneRows<float>& gradient, int token,
                                       int tx) {
  unrolled<Tiles::kQuads>([&](int m) {
    const int channel = 4 * (tx + Tiles::kTx * m);
    float4 sum = sums[m];
    add_scaled(-rest, row(channel), sum);
    store_quad(gradient, token, channel, scaled(scale, sum));
  });
}

/// Writes the sums unchanged to the token's gradient.
template <class Tiles>
__device__ inline void write_row(const float4 (&sums)[Tiles::kQuads],
                                 const LaneRows<float>& gradient, int token, int tx) {
  unrolled<Tiles::kQuads>(
      [&](int m) { store_quad(gradient, token, 4 * (tx + Tiles::kTx * m), sums[m]); });
}

}  // namespace vla_bench::mixers::softmax::cuda
