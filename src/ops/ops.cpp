// Dispatches every operation to its device.
#include "ops/ops.h"

#include <fmt/format.h>

#include <type_traits>

#include "core/error.h"
#include "ops/backends.h"

namespace vla_bench::ops {
namespace {

template <class T>
inline constexpr bool kOnGpu = std::is_same_v<T, float>;

/// Throws RunError for element types without GPU code.
template <class T>
bool on_gpu(const Context& context, const char* operation) {
  if (context.device == Device::cpu) return false;
  if (!kOnGpu<T>) {
    throw RunError(fmt::format("cuda: {} runs only in float32", operation));
  }
  return true;
}

}  // namespace

template <class T>
void linear_forward(const Context& context, const LinearForward<T>& args) {
  if (!on_gpu<T>(context, "linear_forward")) return cpu::linear_forward(context, args);
  if constexpr (kOnGpu<T>) cuda::linear_forward(context, args);
}

template <class T>
void linear_backward(const Context& context, const LinearBackward<T>& args) {
  if (!on_gpu<T>(context, "linear_backward")) return cpu::linear_backward(context, args);
  if constexpr (kOnGpu<T>) cuda::linear_backward(context, args);
}

void join_side_streams(const Context& context) {
  if (context.device == Device::cuda) cuda::join_side_streams();
}

template <class T>
void layer_norm_forward(const Context& context, const LayerNormForward<T>& args) {
  if (!on_gpu<T>(context, "layer_norm_forward")) return cpu::layer_norm_forward(context, args);
  if constexpr (kOnGpu<T>) cuda::layer_norm_forward(context, args);
}

template <class T>
void layer_norm_backward(const Context& context, const LayerNormBackward<T>& args) {
  if (!on_gpu<T>(context, "layer_norm_backward")) return cpu::layer_norm_backward(context, args);
  if constexpr (kOnGpu<T>) cuda::layer_norm_backward(context, args);
}

template <class T>
void rms_norm_forward(const Context& context, const RmsNormForward<T>& args) {
  if (!on_gpu<T>(context, "rms_norm_forward")) return cpu::rms_norm_forward(context, args);
  if constexpr (kOnGpu<T>) cuda::rms_norm_forward(context, args);
}

template <class T>
void rms_norm_backward(const Context& context, const RmsNormBackward<T>& args) {
  if (!on_gpu<T>(context, "rms_norm_backward")) return cpu::rms_norm_backward(context, args);
  if constexpr (kOnGpu<T>) cuda::rms_norm_backward(context, args);
}

template <class T>
void gelu_forward(const Context& context, const T* x, T* y, Index count) {
  if (!on_gpu<T>(context, "gelu_forward")) return cpu::gelu_forward(context, x, y, count);
  if constexpr (kOnGpu<T>) cuda::gelu_forward(context, x, y, count);
}

template <class T>
void gelu_backward(const Context& context, const T* x, const T* dy, T* dx, Index count) {
  if (!on_gpu<T>(context, "gelu_backward")) return cpu::gelu_backward(context, x, dy, dx, count);
  if constexpr (kOnGpu<T>) cuda::gelu_backward(context, x, dy, dx, count);
}

template <class T>
void gated_sum_forward(const Context& context, const GatedSum<T>& args) {
  if (!on_gpu<T>(context, "gated_sum_forward")) return cpu::gated_sum_forward(context, args);
  if constexpr (kOnGpu<T>) cuda::gated_sum_forward(context, args);
}

template <class T>
void gated_sum_backward(const Context& context, const GatedSumBackward<T>& args) {
  if (!on_gpu<T>(context, "gated_sum_backward")) return cpu::gated_sum_backward(context, args);
  if constexpr (kOnGpu<T>) cuda::gated_sum_backward(context, args);
}

template <class T>
void fill_zero(const Context& context, T* data, Index count) {
  if (!on_gpu<T>(context, "fill_zero")) return cpu::fill_zero(context, data, count);
  if constexpr (kOnGpu<T>) cuda::fill_zero(context, data, count);
}

template <class T>
void embedding_forward(const Context& context, const EmbeddingForward<T>& args) {
  if (!on_gpu<T>(context, "embedding_forward")) return cpu::embedding_forward(context, args);
  if constexpr (kOnGpu<T>) cuda::embedding_forward(context, args);
}

template <class T>
void embedding_backward(const Context& context, const EmbeddingBackward<T>& args) {
  if (!on_gpu<T>(context, "embedding_backward")) return cpu::embedding_backward(context, args);
  if constexpr (kOnGpu<T>) cuda::embedding_backward(context, args);
}

template <class T>
void gather_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                 Matrix<T> out) {
  if (!on_gpu<T>(context, "gather_rows")) return cpu::gather_rows(context, in, rows, out);
  if constexpr (kOnGpu<T>) cuda::gather_rows(context, in, rows, out);
}

template <class T>
void scatter_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                  Matrix<T> out) {
  if (!on_gpu<T>(context, "scatter_rows")) return cpu::scatter_rows(context, in, rows, out);
  if constexpr (kOnGpu<T>) cuda::scatter_rows(context, in, rows, out);
}

template <class T>
void cross_entropy(const Context& context, const CrossEntropy<T>& args) {
  if (!on_gpu<T>(context, "cross_entropy")) return cpu::cross_entropy(context, args);
  if constexpr (kOnGpu<T>) cuda::cross_entropy(context, args);
}

template <class T>
void short_conv_forward(const Context& context, const ShortConv<T>& args, Matrix<T> y) {
  if (!on_gpu<T>(context, "short_conv_forward")) return cpu::short_conv_forward(context, args, y);
  if constexpr (kOnGpu<T>) cuda::short_conv_forward(context, args, y);
}

template <class T>
void short_conv_backward(const Context& context, const ShortConv<T>& args,
                         const ShortConvGradients<T>& gradients) {
  if (!on_gpu<T>(context, "short_conv_backward"))
    return cpu::short_conv_backward(context, args, gradients);
  if constexpr (kOnGpu<T>) cuda::short_conv_backward(context, args, gradients);
}

template <class T>
void optimiser_step(const Context& context, const OptimiserStep<T>& args) {
  if (!on_gpu<T>(context, "optimiser_step")) return cpu::optimiser_step(context, args);
  if constexpr (kOnGpu<T>) cuda::optimiser_step(context, args);
}

template void linear_forward(const Context&, const LinearForward<float>&);
template void linear_forward(const Context&, const LinearForward<double>&);
template void linear_backward(const Context&, const LinearBackward<float>&);
template void linear_backward(const Context&, const LinearBackward<double>&);
template void layer_norm_forward(const Context&, const LayerNormForward<float>&);
template void layer_norm_forward(const Context&, const LayerNormForward<double>&);
template void layer_norm_backward(const Context&, const LayerNormBackward<float>&);
template void layer_norm_backward(const Context&, const LayerNormBackward<double>&);
template void rms_norm_forward(const Context&, const RmsNormForward<float>&);
template void rms_norm_forward(const Context&, const RmsNormForward<double>&);
template void rms_norm_backward(const Context&, const RmsNormBackward<float>&);
template void rms_norm_backward(const Context&, const RmsNormBackward<double>&);
template void gelu_forward(const Context&, const float*, float*, Index);
template void gelu_forward(const Context&, const double*, double*, Index);
template void gelu_backward(const Context&, const float*, const float*, float*, Index);
template void gelu_backward(const Context&, const double*, const double*, double*, Index);
template void gated_sum_forward(const Context&, const GatedSum<float>&);
template void gated_sum_forward(const Context&, const GatedSum<double>&);
template void gated_sum_backward(const Context&, const GatedSumBackward<float>&);
template void gated_sum_backward(const Context&, const GatedSumBackward<double>&);
template void fill_zero(const Context&, float*, Index);
template void fill_zero(const Context&, double*, Index);
template void embedding_forward(const Context&, const EmbeddingForward<float>&);
template void embedding_forward(const Context&, const EmbeddingForward<double>&);
template void embedding_backward(const Context&, const EmbeddingBackward<float>&);
template void embedding_backward(const Context&, const EmbeddingBackward<double>&);
template void gather_rows(const Context&, Matrix<const float>, const std::int32_t*, Matrix<float>);
template void gather_rows(const Context&, Matrix<const double>, const std::int32_t*,
                          Matrix<double>);
template void scatter_rows(const Context&, Matrix<const float>, const std::int32_t*, Matrix<float>);
template void scatter_rows(const Context&, Matrix<const double>, const std::int32_t*,
                           Matrix<double>);
template void cross_entropy(const Context&, const CrossEntropy<float>&);
template void cross_entropy(const Context&, const CrossEntropy<double>&);
template void short_conv_forward(const Context&, const ShortConv<float>&, Matrix<float>);
template void short_conv_forward(const Context&, const ShortConv<double>&, Matrix<double>);
template void short_conv_backward(const Context&, const ShortConv<float>&,
                                  const ShortConvGradients<float>&);
template void short_conv_backward(const Context&, const ShortConv<double>&,
                                  const ShortConvGradients<double>&);
template void optimiser_step(const Context&, const OptimiserStep<float>&);
template void optimiser_step(const Context&, const OptimiserStep<double>&);

}  // namespace vla_bench::ops
