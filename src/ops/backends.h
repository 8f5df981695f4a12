// The functions that ops.cpp dispatches to. ops.h states the contracts; each device implements all
// of them in its own namespace: cpu/, cuda/ (only float), or no_cuda/, whose functions throw
// RunError naming the operation.
#pragma once

#include "ops/ops.h"

namespace vla_bench::ops::cpu {

template <class T>
void linear_forward(const Context& context, const LinearForward<T>& args);
template <class T>
void linear_backward(const Context& context, const LinearBackward<T>& args);
template <class T>
void layer_norm_forward(const Context& context, const LayerNormForward<T>& args);
template <class T>
void layer_norm_backward(const Context& context, const LayerNormBackward<T>& args);
template <class T>
void rms_norm_forward(const Context& context, const RmsNormForward<T>& args);
template <class T>
void rms_norm_backward(const Context& context, const RmsNormBackward<T>& args);
template <class T>
void gelu_forward(const Context& context, const T* x, T* y, Index count);
template <class T>
void gelu_backward(const Context& context, const T* x, const T* dy, T* dx, Index count);
template <class T>
void gated_sum_forward(const Context& context, const GatedSum<T>& args);
template <class T>
void gated_sum_backward(const Context& context, const GatedSumBackward<T>& args);
template <class T>
void fill_zero(const Context& context, T* data, Index count);
template <class T>
void embedding_forward(const Context& context, const EmbeddingForward<T>& args);
template <class T>
void embedding_backward(const Context& context, const EmbeddingBackward<T>& args);
template <class T>
void gather_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                 Matrix<T> out);
template <class T>
void scatter_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                  Matrix<T> out);
template <class T>
void cross_entropy(const Context& context, const CrossEntropy<T>& args);
template <class T>
void short_conv_forward(const Context& context, const ShortConv<T>& args, Matrix<T> y);
template <class T>
void short_conv_backward(const Context& context, const ShortConv<T>& args,
                         const ShortConvGradients<T>& gradients);
template <class T>
void optimiser_step(const Context& context, const OptimiserStep<T>& args);

}  // namespace vla_bench::ops::cpu

namespace vla_bench::ops::cuda {

void join_side_streams();
void linear_forward(const Context& context, const LinearForward<float>& args);
void linear_backward(const Context& context, const LinearBackward<float>& args);
void layer_norm_forward(const Context& context, const LayerNormForward<float>& args);
void layer_norm_backward(const Context& context, const LayerNormBackward<float>& args);
void rms_norm_forward(const Context& context, const RmsNormForward<float>& args);
void rms_norm_backward(const Context& context, const RmsNormBackward<float>& args);
void gelu_forward(const Context& context, const float* x, float* y, Index count);
void gelu_backward(const Context& context, const float* x, const float* dy, float* dx, Index count);
void gated_sum_forward(const Context& context, const GatedSum<float>& args);
void gated_sum_backward(const Context& context, const GatedSumBackward<float>& args);
void fill_zero(const Context& context, float* data, Index count);
void embedding_forward(const Context& context, const EmbeddingForward<float>& args);
void embedding_backward(const Context& context, const EmbeddingBackward<float>& args);
void gather_rows(const Context& context, Matrix<const float> in, const std::int32_t* rows,
                 Matrix<float> out);
void scatter_rows(const Context& context, Matrix<const float> in, const std::int32_t* rows,
                  Matrix<float> out);
void cross_entropy(const Context& context, const CrossEntropy<float>& args);
void short_conv_forward(const Context& context, const ShortConv<float>& args, Matrix<float> y);
void short_conv_backward(const Context& context, const ShortConv<float>& args,
                         const ShortConvGradients<float>& gradients);
void optimiser_step(const Context& context, const OptimiserStep<float>& args);

}  // namespace vla_bench::ops::cuda
