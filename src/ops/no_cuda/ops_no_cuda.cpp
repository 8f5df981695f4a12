// The operations of a build without CUDA: each says which one is missing.
#include <fmt/format.h>

#include "core/error.h"
#include "ops/backends.h"

namespace vla_bench::ops::cuda {
namespace {

[[noreturn]] void not_built(const char* operation) {
  throw RunError(fmt::format("cuda: {} is not part of this build", operation));
}

}  // namespace

template <class T>
void linear_forward(const Context&, const LinearForward<T>&) {
  not_built("linear_forward");
}

template <class T>
void linear_backward(const Context&, const LinearBackward<T>&) {
  not_built("linear_backward");
}

template <class T>
void layer_norm_forward(const Context&, const LayerNormForward<T>&) {
  not_built("layer_norm_forward");
}

template <class T>
void layer_norm_backward(const Context&, const LayerNormBackward<T>&) {
  not_built("layer_norm_backward");
}

template <class T>
void gelu_forward(const Context&, const T*, T*, Index) {
  not_built("gelu_forward");
}

template <class T>
void gelu_backward(const Context&, const T*, const T*, T*, Index) {
  not_built("gelu_backward");
}

template <class T>
void add(const Context&, const T*, const T*, T*, Index) {
  not_built("add");
}

template <class T>
void fill_zero(const Context&, T*, Index) {
  not_built("fill_zero");
}

template <class T>
void embedding_forward(const Context&, const EmbeddingForward<T>&) {
  not_built("embedding_forward");
}

template <class T>
void embedding_backward(const Context&, const EmbeddingBackward<T>&) {
  not_built("embedding_backward");
}

template <class T>
void gather_rows(const Context&, Matrix<const T>, const std::int32_t*, Matrix<T>) {
  not_built("gather_rows");
}

template <class T>
void scatter_rows(const Context&, Matrix<const T>, const std::int32_t*, Matrix<T>) {
  not_built("scatter_rows");
}

template <class T>
LossSums cross_entropy(const Context&, const CrossEntropy<T>&) {
  not_built("cross_entropy");
}

template <class T>
void short_conv_forward(const Context&, const ShortConv<T>&, Matrix<T>) {
  not_built("short_conv_forward");
}

template <class T>
void short_conv_backward(const Context&, const ShortConv<T>&, const ShortConvGradients<T>&) {
  not_built("short_conv_backward");
}

template <class T>
double norm(const Context&, const T*, Index) {
  not_built("norm");
}

template <class T>
void adamw_step(const Context&, const AdamW<T>&) {
  not_built("adamw_step");
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

}  // namespace vla_bench::ops::cuda
