// A mixer as a model sees it: projections, convolutions, core, output norm, output map.
//   1. q, k, v = W_q x, W_k x, W_v x (+ biases); q and k have H d channels, v has H d_v
//   2. q = conv(q), k = conv(k), v = silu(conv(v)): causal depthwise convolutions of
//      model.short_conv_qkv taps without bias, if any, as flash-linear-attention's layers have
//      them. There q and k have a SiLU, too, where that is the mixer's own map; here the core
//      applies its map to what it gets, so it is never applied twice, and a mixer with another map
//      (elu1) gets q and k bare.
//   3. further maps of x, or of the keys as the core gets them
//   4. o = core(q, k, v, ...)
//   5. y = W_o norm(o) + b_o, from H d_v channels to D. The norm, if any, is a LayerNorm over them
//      all, or an RMSNorm over the d_v channels of each head with one weight (d_v) for all heads
//      (arXiv:2406.06484's layer).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mixers/mixer.h"
#include "mixers/parameters.h"

namespace vla_bench {

template <class T>
class MixerLayer {
 public:
  /// Adds this layer's parameters to `table` under `prefix` ("blocks.0.attn." or ""). Of the model
  /// it reads heads, convolutions, biases and the initial scale of the output map.
  MixerLayer(const ModelConfig& model, const MixerConfig& mixer, Device device,
             Implementation implementation, const std::string& prefix, ParameterTable& table);

  /// x, y: (B * T, D). `parameters` is the flat buffer of the table. With `training`, keeps what
  /// backward needs.
  void forward(const Context& context, Index batch, Index tokens, Matrix<const T> x,
               const T* parameters, Matrix<T> y, bool training) {
    forward(context, batch, tokens, x, parameters, {}, y, training);
  }
  /// The same; y also adds `residual` (B * T, D).
  void forward(const Context& context, Index batch, Index tokens, Matrix<const T> x,
               const T* parameters, Matrix<const T> residual, Matrix<T> y, bool training);

  /// After forward(training). Overwrites dx (B * T, D). Parameter gradients accumulate on side
  /// streams: x and dy must not change until ops::join_side_streams.
  void backward(const Context& context, Matrix<const T> x, const T* parameters, Matrix<const T> dy,
                Matrix<T> dx, T* gradients);

  /// A layer around a given core.
  MixerLayer(const ModelConfig& model, MixerLayout layout, std::unique_ptr<MixerCore<T>> core,
             const std::string& prefix, ParameterTable& table);

  /// The core's inputs of the last forward, with its parameters in the flat buffer.
  CoreInputs<T> core_inputs(const T* parameters) const;
  const MixerCore<T>& core() const { return *core_; }
  const MixerLayout& layout() const { return layout_; }
  /// Bytes kept between forward and backward for this shape.
  Index activation_bytes(Index batch, Index tokens) const;

 private:
  struct Offsets {
    Index weight = 0, bias = kNoBias;
  };
  static constexpr Index kNoBias = -1;
  /// A bias in the flat buffer of parameters or gradients, or null.
  template <class U>
  static U* bias_of(U* flat, const Offsets& offsets) {
    return offsets.bias == kNoBias ? nullptr : flat + offsets.bias;
  }
  /// A projection beyond q, k and v.
  struct Further {
    Projection projection;
    Offsets offsets;
    Array<T> values, gradients;            // (M, H w)
    Index narrow = 0;                      // offset of the weight of its first map, if it has two
    Array<T> narrow_values{}, d_narrow{};  // (M, through)
  };

  Index d_model() const { return n_heads_ * d_h_; }
  Index width(const Further& further) const { return n_heads_ * further.projection.width; }
  /// Columns of q, of k; of q, k and v together.
  Index key_columns() const { return n_heads_ * layout_.key_channels(d_h_); }
  Index qkv_columns() const { return 2 * key_columns() + value_columns(); }
  /// Columns of v, of o.
  Index value_columns() const { return n_heads_ * d_v_; }
  HeadDims head_dims(Index batch, Index tokens) const {
    return {.batch = batch, .tokens = tokens, .heads = n_heads_, .d_h = d_h_, .d_v = d_v_};
  }
  /// Views of q, k and v side by side in a buffer (M, qkv_columns).
  template <class U>
  HeadView<U> part(U* base, Index first, Index channels) const {
    return {base + first, qkv_columns(), channels};
  }
  /// q, k and v as the core reads them.
  const Array<T>& core_projections() const { return taps_ > 0 ? convolved_ : projections_; }
  ops::ShortConv<T> convolution(const T* parameters) const;
  /// Step 5's norm of o_ into normed_, and its backward from d_normed_ to d_o_.
  void norm_forward(const Context& context, const T* parameters);
  void norm_backward(const Context& context, const T* parameters, T* gradients);
  void add_further(const Projection& projection, const std::string& prefix, ParameterTable& table);
  void forward_further(const Context& context, Further& further, Matrix<const T> source,
                       const T* parameters) const;
  /// Parameter gradients and `d_source` accumulate.
  void backward_further(const Context& context, Further& further, Matrix<const T> source,
                        Matrix<T> d_source, const T* parameters, T* gradients) const;

  MixerLayout layout_;
  Index n_heads_;
  Index d_h_, d_v_;
  Index taps_;  // of the convolutions of q, k and v; 0: none
  bool bias_;
  std::unique_ptr<MixerCore<T>> core_;
  Offsets qkv_, norm_, output_;
  Index convolution_ = 0;  // offset of the weights of q, k and v, (qkv, taps)
  std::vector<Further> further_;
  std::vector<Index> core_parameters_;  // offsets, as the layout's
  HeadDims dims_;
  // Activations of the last forward and scratch of the backward.
  Array<T> projections_;         // (M, qkv): q, k, v
  Array<T> convolved_;           // (M, qkv), only with convolutions
  Array<T> o_;                   // (M, H d_v)
  Array<T> normed_;              // (M, H d_v)
  Array<T> mean_, inverse_std_;  // (M); an RMSNorm has no mean and (M, H)
  Array<T> saved_;               // the core's
  Array<T> d_projections_;       // (M, qkv)
  Array<T> d_convolved_;         // (M, qkv), only with convolutions
  Array<T> d_o_;                 // (M, H d_v)
  Array<T> d_normed_;            // (M, H d_v)
};

}  // namespace vla_bench
