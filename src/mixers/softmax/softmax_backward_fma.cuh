// Shared by the float32 kernels of the backward; the numbers are the steps of softmax.h.
#pragma once

#include <cuda_runtime.h>

#include "mixers/softmax/instructions.cuh"
#include "mixers/softmax/softmax_cuda_launch.h"
#include "mixers/softmax/softmax_fma.cuh"
#include "mixers/softmax/softmax_rows.cuh"
#include "mixers/softmax/softmax_tiles.h"

namespace vla_bench::mixers::softmax::cuda {

struct BackwardArguments {
  int tokens, heads;
  Rows<const float> q, k, v, o, d_o;
  Rows<float> dq, dk, dv;
  const float2* normalisation;
  float2* row_terms;
  float exponent_scale;  // log2(e) / sqrt(d): from q . k to the exponent of 2
  float score_scale;     // 1 / sqrt(d)

  explicit BackwardArguments(const Backward& args)
      : tokens(static_cast<int>(args.dims.tokens)),
        heads(static_cast<int>(args.dims.heads)),
        q(args.q),
        k(args.k),
        v(args.v),
        o(args.o),
        d_o(args.d_o),
        dq(args.dq),
        dk(args.dk),
        dv(args.dv),
        normalisation(args.normalisation),
        row_terms(args.row_terms),
        exponent_scale(cuda::exponent_scale(args.dims.d_h)),
        score_scale(cuda::score_scale(args.dims.d_h)) {}
};

/// The terms from which a query's weights and score gradients are computed.
struct QueryTerms {
  float shift, scale;  // its normalisation
  float along;         // D
};

/// Step 2 of one pair: `product` = q . k becomes the weight, `dp` the gradient of the score.
/// No product here may be fused with a sum, so that every kernel and role rounds in the same way.
__device__ inline void differentiate(bool visible, const QueryTerms& query, float exponent_scale,
                                     float& product, float& dp) {
  const float exponential = exp2_approximate(fmaf(product, exponent_scale, -query.shift));
  product = visible ? __fmul_rn(exponential, query.scale) : 0.0F;
  dp = __fmul_rn(product, __fsub_rn(dp, query.along));
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
#pragma unroll
  for (int m = 0; m < Tiles::kQuads; ++m) {
    const int channel = 4 * (tx + Tiles::kTx * m);
    float4 sum = sums[m];
    add_scaled(-rest, row(channel), sum);
    store_quad(gradient, token, channel, scaled(scale, sum));
  }
}

/// Writes the sums unchanged to the token's gradient.
template <class Tiles>
__device__ inline void write_row(const float4 (&sums)[Tiles::kQuads],
                                 const LaneRows<float>& gradient, int token, int tx) {
#pragma unroll
  for (int m = 0; m < Tiles::kQuads; ++m) {
    store_quad(gradient, token, 4 * (tx + Tiles::kTx * m), sums[m]);
  }
}

}  // namespace vla_bench::mixers::softmax::cuda
