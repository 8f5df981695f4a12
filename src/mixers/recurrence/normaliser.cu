#include "core/cuda/check.h"
#include "mixers/recurrence/cuda_token.cuh"
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
__global__ void __launch_bounds__(kTokenThreads)
    normaliser_terms_kernel(const NormaliserTerms args) {
  const TokenLanes<D> at(args.dims);
  const float along = at.dot(at.load(args.o), at.load(args.d_o));
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
    normaliser_terms_kernel<d><<<token_blocks<d>(args.dims), kTokenThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("normaliser_terms_kernel");
}

}  // namespace vla_bench::mixers::cuda
