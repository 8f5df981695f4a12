// How kernels find a token's channels, and for which numbers of channels there are kernels.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "mixers/heads.h"

namespace vla_bench::mixers::cuda {

/// Head sizes that mixers have kernels for: powers of two from 8 to kLargestHead, or to
/// kLargestInAll, which all mixers have. 8, the golden files' size, runs in kernels of 16: channels
/// that do not exist are read as 0 and not written.
inline constexpr Index kLargestHead = 256, kLargestInAll = 128;
inline bool is_head_size(Index d, Index largest) {
  return d >= 8 && d <= largest && std::has_single_bit(static_cast<std::size_t>(d));
}

/// The size whose kernels serve d.
inline Index kernel_head_size(Index d) { return d < 16 ? 16 : d; }

// VLA_FOR_HEAD_SIZES(X): X(d) for the one head size that a source is compiled for, or where it is
// compiled once (VLA_CUDA_QUICK) for each that with_head_size or with_rule_head_size knows.
#ifdef VLA_HEAD_SIZE
#define VLA_FOR_HEAD_SIZES(X) X(VLA_HEAD_SIZE)
#define VLA_FOR_RULE_HEAD_SIZES(X) X(VLA_HEAD_SIZE)
#else
#define VLA_FOR_HEAD_SIZES(X) X(16) X(32) X(64) X(128)
#define VLA_FOR_RULE_HEAD_SIZES(X) VLA_FOR_HEAD_SIZES(X) X(256)
#endif

// Not where a source is compiled once a head size: a call would put the kernels of all sizes into
// each of its objects.
#ifndef VLA_HEAD_SIZE
/// Calls body with kernel_head_size(d), d at most kLargestInAll, as a compile-time constant.
template <class Body>
void with_head_size(Index d, const Body& body) {
  switch (kernel_head_size(d)) {
    case 16:
      return body(std::integral_constant<int, 16>());
    case 32:
      return body(std::integral_constant<int, 32>());
    case 64:
      return body(std::integral_constant<int, 64>());
    default:
      return body(std::integral_constant<int, 128>());
  }
}
/// The same for d up to kLargestHead: of the recurrence token by token, and of rules without a
/// matrix beside S.
template <class Body>
void with_rule_head_size(Index d, const Body& body) {
  if (d == kLargestHead) return body(std::integral_constant<int, kLargestHead>());
  with_head_size(d, body);
}
#endif

/// The bits of a bfloat16 number.
enum class Bfloat16 : std::uint16_t {};

/// Channels of token t, batch element b and head h stand at data + b * batch + t * token + h *
/// head, consecutive. Strides count elements. Where neighbouring heads have the same channels, as
/// the groups of wide values have the same keys (HeadDims::by_groups), h counts heads / sharing.
template <class T>
struct TokenView {
  T* data = nullptr;
  Index batch = 0, token = 0, head = 0;
  int sharing = 1;

  TokenView() = default;
  constexpr TokenView(T* data_, Index batch_, Index token_, Index head_)
      : data(data_), batch(batch_), token(token_), head(head_) {}
  /// TokenView<float> converts to TokenView<const float>.
  template <class U>
  requires std::is_same_v<T, const U> TokenView(const TokenView<U>& other)
      : data(other.data),
        batch(other.batch),
        token(other.token),
        head(other.head),
        sharing(other.sharing) {}

  /// The first token's channels.
  constexpr T* lane(int b, int h) const { return data + b * batch + h / sharing * head; }
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

/// The view for heads of which `sharing` neighbours each have the channels of one of its own.
template <class T>
TokenView<T> shared_by(Index sharing, TokenView<T> view) {
  view.sharing = static_cast<int>(sharing);
  return view;
}

/// A core's view of values, (B, T, H, d_v), by groups of d channels.
template <class T>
TokenView<T> token_view_by_groups(const HeadDims& dims, HeadView<T> values) {
  return {values.data, dims.tokens * values.row_stride, values.row_stride, dims.d_h};
}

/// Whether 16 bytes of channels can be read at once.
template <class T>
bool is_aligned(const TokenView<T>& view) {
  constexpr Index kAtOnce = 16 / sizeof(T);
  return reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0 && view.batch % kAtOnce == 0 &&
         view.token % kAtOnce == 0 && view.head % kAtOnce == 0;
}

/// A view on its way into a kernel, `width` channels a token. `wide`: four channels at once.
template <class T>
struct TokenArray {
  TokenView<T> view;
  int width = 0;
  bool wide = false;

  TokenArray() = default;
  TokenArray(const HeadDims& dims, const TokenView<T>& view_)
      : view(view_), width(static_cast<int>(dims.d_h)), wide(is_aligned(view_)) {}
  /// A number a token, or null.
  TokenArray(const HeadDims& dims, T* scalars) : view(token_view(dims, scalars, 1)), width(1) {}
};
using TokenSource = TokenArray<const float>;
using TokenTarget = TokenArray<float>;

}  // namespace vla_bench::mixers::cuda
