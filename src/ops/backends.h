// What ops.cpp dispatches to. ops.h states the contracts; each device implements all of them under
// its own namespace: cpu/, cuda/, or no_cuda/ whose functions throw RunError naming the operation.
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
void gelu_forward(const Context& context, const T* x, T* y, Index count);
template <class T>
void gelu_backward(const Context& context, const T* x, const T* dy, T* dx, Index count);
template <class T>
void add(const Context& context, const T* a, const T* b, T* out, Index count);
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
LossSums cross_entropy(const Context& context, const CrossEntropy<T>& args);
template <class T>
void short_conv_forward(const Context& context, const ShortConv<T>& args, Matrix<T> y);
template <class T>
void short_conv_backward(const Context& context, const ShortConv<T>& args,
                         const ShortConvGradients<T>& gradients);
template <class T>
double norm(const Context& context, const T* values, Index count);
template <class T>
void adamw_step(const Context& context, const AdamW<T>& args);

}  // namespace vla_bench::ops::cpu

namespace vla_bench::ops::cuda {

template <class T>
void linear_forward(const Context& context, const LinearForward<T>& args);
template <class T>
void linear_backward(const Context& context, const LinearBackward<T>& args);
template <class T>
void layer_norm_forward(const Context& context, const LayerNormForward<T>& args);
template <class T>
void layer_norm_backward(const Context& context, const LayerNormBackward<T>& args);
template <class T>
void gelu_forward(const Context& context, const T* x, T* y, Index count);
template <class T>
void gelu_backward(const Context& context, const T* x, const T* dy, T* dx, Index count);
template <class T>
void add(const Context& context, const T* a, const T* b, T* out, Index count);
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
LossSums cross_entropy(const Context& context, const CrossEntropy<T>& args);
template <class T>
void short_conv_forward(const Context& context, const ShortConv<T>& args, Matrix<T> y);
template <class T>
void short_conv_backward(const Context& context, const ShortConv<T>& args,
                         const ShortConvGradients<T>& gradients);
template <class T>
double norm(const Context& context, const T* values, Index count);
template <class T>
void adamw_step(const Context& context, const AdamW<T>& args);

}  // namespace vla_bench::ops::cuda
