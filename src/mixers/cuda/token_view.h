// How scans on a GPU find a token's channels.
#pragma once

#include <cstdint>

#include "mixers/mixer.h"

namespace vla_bench::mixers::cuda {

/// Channels of token t, batch element b and head h stand at data + b * batch + t * token + h *
/// head, consecutive. Strides count elements.
template <class T>
struct TokenView {
  T* data = nullptr;
  Index batch = 0, token = 0, head = 0;

  TokenView() = default;
  TokenView(T* data_, Index batch_, Index token_, Index head_)
      : data(data_), batch(batch_), token(token_), head(head_) {}
  /// TokenView<float> converts to TokenView<const float>.
  template <class U>
  requires std::is_same_v<T, const U> TokenView(const TokenView<U>& other)
      : data(other.data), batch(other.batch), token(other.token), head(other.head) {}
};

/// A core's view (B, T, H, w).
template <class T>
TokenView<T> token_view(const HeadDims& dims, HeadView<T> view) {
  return {view.data, dims.tokens * view.row_stride, view.row_stride, view.head_stride};
}

/// A dense array (B, T, H, width).
template <class T>
TokenView<T> token_view(const HeadDims& dims, T* data, Index width) {
  const Index row = dims.heads * width;
  return {data, dims.tokens * row, row, width};
}

/// Whether four channels can be read at once.
template <class T>
bool is_aligned(const TokenView<T>& view) {
  return reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0 && view.batch % 4 == 0 &&
         view.token % 4 == 0 && view.head % 4 == 0;
}

}  // namespace vla_bench::mixers::cuda
