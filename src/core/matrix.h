// Row-major matrix views. core/array.h has the legend of shape comments.
#pragma once

#include <type_traits>

#include "core/index.h"

namespace vla_bench {

/// A non-owning row-major matrix. `stride` is the number of elements between the starts of rows.
template <class T>
struct Matrix {
  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index stride = 0;

  Matrix() = default;
  Matrix(T* data_, Index rows_, Index cols_) : Matrix(data_, rows_, cols_, cols_) {}
  Matrix(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  /// Matrix<T> converts to Matrix<const T>.
  template <class U>
  requires std::is_same_v<T, const U> Matrix(const Matrix<U>& other)
      : data(other.data), rows(other.rows), cols(other.cols), stride(other.stride) {}

  bool empty() const { return data == nullptr; }
  T* row(Index i) const { return data + i * stride; }
  Matrix columns(Index first, Index count) const { return {data + first, rows, count, stride}; }
};

}  // namespace vla_bench
