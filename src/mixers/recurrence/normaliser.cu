#include "core/cuda/check.h"
#include "mixers/cuda/features.cuh"
#include "mixers/recurrence/normaliser.cuh"

namespace vla_bench::mixers::cuda {
namespace {

/// A block a lane.
template <int D>
__global__ void __launch_bounds__(D < 32 ? 32 : D)
    normaliser_forward_kernel(const NormaliserForward args) {
  __shared__ DenominatorProducts<D> products;
  walk_denominators<D>(args, static_cast<int>(blockIdx.x), products);
}

template <int D>
__global__ void __launch_bounds__(kFeatureThreads)
    normaliser_terms_kernel(const NormaliserTerms args) {
  const TokenLanes<D> at(args.dims);
  Share o, d_o;
  at.load(args.o, o);
  at.load(args.d_o, d_o);
  const float along = at.dot(o, d_o);
  if (!at.writes_scalars()) return;
  const float c = args.denominator[at.scalar()];
  args.scale[at.scalar()] = 1.0F / at_least(c, args.floor);
  args.d_denominator[at.scalar()] = c < args.floor ? 0.0F : -along / c;
}

}  // namespace

void normaliser_forward(cudaStream_t stream, const NormaliserForward& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    constexpr int D = d;
    constexpr int kThreads = D < 32 ? 32 : D;
    normaliser_forward_kernel<D>
        <<<static_cast<unsigned>(args.dims.lanes()), kThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("normaliser_forward_kernel");
}

void normaliser_terms(cudaStream_t stream, const NormaliserTerms& args) {
  with_head_size(args.dims.d_h, [&](auto d) {
    normaliser_terms_kernel<d><<<feature_blocks<d>(args.dims), kFeatureThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("normaliser_terms_kernel");
}

}  // namespace vla_bench::mixers::cuda
