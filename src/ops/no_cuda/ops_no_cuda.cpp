// The operations of a build without CUDA: each throws RunError with its name.
#include <fmt/format.h>

#include "core/error.h"
#include "ops/backends.h"

namespace vla_bench::ops::cuda {
namespace {

[[noreturn]] void not_built(const char* operation) {
  throw RunError(fmt::format("cuda: {} is not part of this build", operation));
}

}  // namespace

void join_side_streams() { not_built("join_side_streams"); }

void linear_forward(const Context&, const LinearForward<float>&) { not_built("linear_forward"); }

void linear_backward(const Context&, const LinearBackward<float>&) { not_built("linear_backward"); }

void layer_norm_forward(const Context&, const LayerNormForward<float>&) {
  not_built("layer_norm_forward");
}

void layer_norm_backward(const Context&, const LayerNormBackward<float>&) {
  not_built("layer_norm_backward");
}

void rms_norm_forward(const Context&, const RmsNormForward<float>&) {
  not_built("rms_norm_forward");
}

void rms_norm_backward(const Context&, const RmsNormBackward<float>&) {
  not_built("rms_norm_backward");
}

void gelu_forward(const Context&, const float*, float*, Index) { not_built("gelu_forward"); }

void gelu_backward(const Context&, const float*, const float*, float*, Index) {
  not_built("gelu_backward");
}

void gated_sum_forward(const Context&, const GatedSum<float>&) { not_built("gated_sum_forward"); }

void gated_sum_backward(const Context&, const GatedSumBackward<float>&) {
  not_built("gated_sum_backward");
}

void fill_zero(const Context&, float*, Index) { not_built("fill_zero"); }

void embedding_forward(const Context&, const EmbeddingForward<float>&) {
  not_built("embedding_forward");
}

void embedding_backward(const Context&, const EmbeddingBackward<float>&) {
  not_built("embedding_backward");
}

void gather_rows(const Context&, Matrix<const float>, const std::int32_t*, Matrix<float>) {
  not_built("gather_rows");
}

void scatter_rows(const Context&, Matrix<const float>, const std::int32_t*, Matrix<float>) {
  not_built("scatter_rows");
}

void cross_entropy(const Context&, const CrossEntropy<float>&) { not_built("cross_entropy"); }

void short_conv_forward(const Context&, const ShortConv<float>&, Matrix<float>) {
  not_built("short_conv_forward");
}

void short_conv_backward(const Context&, const ShortConv<float>&,
                         const ShortConvGradients<float>&) {
  not_built("short_conv_backward");
}

void optimiser_step(const Context&, const OptimiserStep<float>&) { not_built("optimiser_step"); }

}  // namespace vla_bench::ops::cuda
