// The one place where an operation turns into a device's code.
#include "ops/ops.h"

#include "ops/backends.h"

namespace vla_bench::ops {

template <class T>
void linear_forward(const Context& context, const LinearForward<T>& args) {
  return context.device == Device::cuda ? cuda::linear_forward(context, args)
                                        : cpu::linear_forward(context, args);
}

template <class T>
void linear_backward(const Context& context, const LinearBackward<T>& args) {
  return context.device == Device::cuda ? cuda::linear_backward(context, args)
                                        : cpu::linear_backward(context, args);
}

template <class T>
void layer_norm_forward(const Context& context, const LayerNormForward<T>& args) {
  return context.device == Device::cuda ? cuda::layer_norm_forward(context, args)
                                        : cpu::layer_norm_forward(context, args);
}

template <class T>
void layer_norm_backward(const Context& context, const LayerNormBackward<T>& args) {
  return context.device == Device::cuda ? cuda::layer_norm_backward(context, args)
                                        : cpu::layer_norm_backward(context, args);
}

template <class T>
void gelu_forward(const Context& context, const T* x, T* y, Index count) {
  return context.device == Device::cuda ? cuda::gelu_forward(context, x, y, count)
                                        : cpu::gelu_forward(context, x, y, count);
}

template <class T>
void gelu_backward(const Context& context, const T* x, const T* dy, T* dx, Index count) {
  return context.device == Device::cuda ? cuda::gelu_backward(context, x, dy, dx, count)
                                        : cpu::gelu_backward(context, x, dy, dx, count);
}

template <class T>
void add(const Context& context, const T* a, const T* b, T* out, Index count) {
  return context.device == Device::cuda ? cuda::add(context, a, b, out, count)
                                        : cpu::add(context, a, b, out, count);
}

template <class T>
void fill_zero(const Context& context, T* data, Index count) {
  return context.device == Device::cuda ? cuda::fill_zero(context, data, count)
                                        : cpu::fill_zero(context, data, count);
}

template <class T>
void embedding_forward(const Context& context, const EmbeddingForward<T>& args) {
  return context.device == Device::cuda ? cuda::embedding_forward(context, args)
                                        : cpu::embedding_forward(context, args);
}

template <class T>
void embedding_backward(const Context& context, const EmbeddingBackward<T>& args) {
  return context.device == Device::cuda ? cuda::embedding_backward(context, args)
                                        : cpu::embedding_backward(context, args);
}

template <class T>
void gather_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                 Matrix<T> out) {
  return context.device == Device::cuda ? cuda::gather_rows(context, in, rows, out)
                                        : cpu::gather_rows(context, in, rows, out);
}

template <class T>
void scatter_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                  Matrix<T> out) {
  return context.device == Device::cuda ? cuda::scatter_rows(context, in, rows, out)
                                        : cpu::scatter_rows(context, in, rows, out);
}

template <class T>
LossSums cross_entropy(const Context& context, const CrossEntropy<T>& args) {
  return context.device == Device::cuda ? cuda::cross_entropy(context, args)
                                        : cpu::cross_entropy(context, args);
}

template <class T>
void short_conv_forward(const Context& context, const ShortConv<T>& args, Matrix<T> y) {
  return context.device == Device::cuda ? cuda::short_conv_forward(context, args, y)
                                        : cpu::short_conv_forward(context, args, y);
}

template <class T>
void short_conv_backward(const Context& context, const ShortConv<T>& args,
                         const ShortConvGradients<T>& gradients) {
  return context.device == Device::cuda ? cuda::short_conv_backward(context, args, gradients)
                                        : cpu::short_conv_backward(context, args, gradients);
}

template <class T>
double norm(const Context& context, const T* values, Index count) {
  return context.device == Device::cuda ? cuda::norm(context, values, count)
                                        : cpu::norm(context, values, count);
}

template <class T>
void adamw_step(const Context& context, const AdamW<T>& args) {
  return context.device == Device::cuda ? cuda::adamw_step(context, args)
                                        : cpu::adamw_step(context, args);
}

template void linear_forward(const Context&, const LinearForward<float>&);
template void linear_forward(const Context&, const LinearForward<double>&);
template void linear_backward(const Context&, const LinearBackward<float>&);
template void linear_backward(const Context&, const LinearBackward<double>&);
template void layer_norm_forward(const Context&, const LayerNormForward<float>&);
template void layer_norm_forward(const Context&, const LayerNormForward<double>&);
template void layer_norm_backward(const Context&, const LayerNormBackward<float>&);
template void layer_norm_backward(const Context&, const LayerNormBackward<double>&);
template void gelu_forward(const Context&, const float*, float*, Index);
template void gelu_forward(const Context&, const double*, double*, Index);
template void gelu_backward(const Context&, const float*, const float*, float*, Index);
template void gelu_backward(const Context&, const double*, const double*, double*, Index);
template void add(const Context&, const float*, const float*, float*, Index);
template void add(const Context&, const double*, const double*, double*, Index);
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
template LossSums cross_entropy(const Context&, const CrossEntropy<float>&);
template LossSums cross_entropy(const Context&, const CrossEntropy<double>&);
template void short_conv_forward(const Context&, const ShortConv<float>&, Matrix<float>);
template void short_conv_forward(const Context&, const ShortConv<double>&, Matrix<double>);
template void short_conv_backward(const Context&, const ShortConv<float>&,
                                  const ShortConvGradients<float>&);
template void short_conv_backward(const Context&, const ShortConv<double>&,
                                  const ShortConvGradients<double>&);
template double norm(const Context&, const float*, Index);
template double norm(const Context&, const double*, Index);
template void adamw_step(const Context&, const AdamW<float>&);
template void adamw_step(const Context&, const AdamW<double>&);

}  // namespace vla_bench::ops
