// Sizes and views of tensors over heads. Kernels include it in the place of mixer.h, whose headers
// would take most of the time that their files take to compile.
#pragma once

#include <type_traits>

#include "core/index.h"

namespace vla_bench {

struct HeadDims {
  Index batch = 0;   // B
  Index tokens = 0;  // T
  Index heads = 0;   // H
  Index d_h = 0;     // d, channels of a key
  Index d_v = 0;     // channels of a value, a multiple of d; 0: d

  Index value_channels() const { return d_v > 0 ? d_v : d_h; }
  /// A value's groups of d channels. Rows of S do not meet except in what they share, r, a, q and
  /// the decay, so each group can have a state (d, d) of its own.
  Index value_groups() const { return value_channels() / d_h; }
  /// With each group as a head of its own.
  HeadDims by_groups() const {
    return {.batch = batch, .tokens = tokens, .heads = heads * value_groups(), .d_h = d_h};
  }
  Index rows() const { return batch * tokens; }
  Index lanes() const { return batch * heads; }  // independent recurrences
};

/// A view of a (B, T, H, w) tensor inside a wider row-major one: element (b, t, h, i) is at
/// data[(b * T + t) * row_stride + h * head_stride + i]. Projections write q, k, v side by side
/// into one buffer, from which cores read them without a copy.
template <class T>
struct HeadView {
  T* data = nullptr;
  Index row_stride = 0;
  Index head_stride = 0;

  HeadView() = default;
  HeadView(T* data_, Index row_stride_, Index head_stride_)
      : data(data_), row_stride(row_stride_), head_stride(head_stride_) {}
  template <class U>
  requires std::is_same_v<T, const U> HeadView(const HeadView<U>& other)
      : data(other.data), row_stride(other.row_stride), head_stride(other.head_stride) {}

  bool empty() const { return data == nullptr; }
  T* at(Index row, Index head) const { return data + row * row_stride + head * head_stride; }
};

}  // namespace vla_bench
