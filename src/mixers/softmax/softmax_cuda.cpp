// The host side of the fused core: its saved tensors, and the choice of kernels by precision.
#include "mixers/softmax/softmax_cuda.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "core/cuda/stream_context.h"
#include "core/error.h"
#include "mixers/cuda_mixers.h"
#include "mixers/softmax/softmax_core.h"
#include "mixers/softmax/softmax_cuda_launch.h"
#include "mixers/softmax/softmax_cudnn.h"
#include "mixers/softmax/softmax_tiles.h"

namespace vla_bench {
namespace mixers {
namespace softmax::cuda {
namespace {

/// Limits of the kernels' grids: 65,535 along batch elements and along tiles. The tiles of long
/// sequences have at least 32 tokens: narrower ones are chosen only where wide ones would be few.
constexpr Index kMostBatch = 65535;
constexpr Index kMostTokens = kMostBatch * 32;

void require_sizes(const HeadDims& dims, Precision precision) {
  const bool on_tensor_cores = dims.d_h >= kLeastOnTensorCores && dims.d_h <= kMostOnTensorCores;
  if (precision != Precision::float32 && !on_tensor_cores) {
    throw RunError(fmt::format("[softmax] cuda: d_h {} is computed only in float32", dims.d_h));
  }
  if (dims.batch <= kMostBatch && dims.tokens <= kMostTokens) return;
  throw RunError(fmt::format("[softmax] cuda: at most {} sequences of {} tokens, got {} of {}",
                             kMostBatch, kMostTokens, dims.batch, dims.tokens));
}

void launch_forward(Precision precision, const Forward& args) {
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  if (precision != Precision::float32) return forward_tensor_cores(stream, precision, args);
  forward_float32(stream, args);
}
void launch_backward(Precision precision, const Backward& args) {
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  if (precision != Precision::float32) return backward_tensor_cores(stream, precision, args);
  if (takes_whole_lane(args.tiling, args.dims)) return backward_whole_lane(stream, args);
  backward_float32(stream, args);
}

class SoftmaxCudaCore final : public AttentionCore<float> {
 public:
  SoftmaxCudaCore(Index d_h, SoftmaxTiling tiling)
      : AttentionCore(d_h, kRowScalars), tiling_(tiling) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    const HeadDims& dims = inputs.dims;
    require_sizes(dims, context.precision);
    if (saved != nullptr) saved->resize(context.device, saved_size(dims));
    if (dims.rows() == 0) return;
    const Forward args{
        .dims = dims,
        .tiling = tiling_,
        .q = inputs.q,
        .k = inputs.k,
        .v = inputs.v,
        .o = o,
        .normalisation = saved == nullptr ? nullptr : reinterpret_cast<float2*>(saved->data())};
    launch_forward(context.precision, args);
  }

  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override {
    const HeadDims& dims = inputs.dims;
    row_terms_.resize(context.device, saved_size(dims));
    if (dims.rows() == 0) return;
    const Backward args{.dims = dims,
                        .tiling = tiling_,
                        .q = inputs.q,
                        .k = inputs.k,
                        .v = inputs.v,
                        .o = gradients.o,
                        .d_o = gradients.d_o,
                        .dq = gradients.dq,
                        .dk = gradients.dk,
                        .dv = gradients.dv,
                        .normalisation = reinterpret_cast<const float2*>(saved.data()),
                        .row_terms = reinterpret_cast<float2*>(row_terms_.data())};
    launch_backward(context.precision, args);
  }

 private:
  static constexpr Index kRowScalars = 2;  // per row, both saved and between the backward's kernels

  SoftmaxTiling tiling_;
  Array<float> row_terms_;  // (B, T, H, 2); kept, since a captured backward writes to it
};

}  // namespace
}  // namespace softmax::cuda

std::unique_ptr<MixerCore<float>> make_softmax_cuda_core(Index d_h, SoftmaxTiling tiling) {
  const Support support = head_size_support(d_h, softmax::cuda::kMostChannels);
  if (!support.ok) throw RunError(support.reason);
  return std::make_unique<softmax::cuda::SoftmaxCudaCore>(d_h, tiling);
}

}  // namespace mixers

std::unique_ptr<MixerCore<float>> make_attention_cuda_core(const SoftmaxOptions& /*options*/,
                                                           Index d_h,
                                                           Implementation implementation) {
  if (implementation == Implementation::cudnn) return mixers::make_cudnn_softmax_core(d_h);
  if (implementation == Implementation::unfused) return mixers::make_unfused_softmax_cuda_core(d_h);
  return mixers::make_softmax_cuda_core(d_h);
}

Support attention_cuda_support(const SoftmaxOptions& /*options*/, Index d_h,
                               Implementation implementation) {
  if (implementation == Implementation::cudnn) return mixers::cudnn_softmax_support(d_h);
  if (implementation == Implementation::unfused) return {};
  return mixers::head_size_support(d_h, mixers::softmax::cuda::kMostChannels);
}

}  // namespace vla_bench
