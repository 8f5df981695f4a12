// One pre-norm block of TinyLM:
//   1. h += mixer([short convolution](LN1 h)), or by model.layers the gated convolution of LN1 h
//   2. h += W2 gelu(W1 LN2 h + b1) + b2; with d_ff 0 the identity in place of this MLP: h += LN2 h
//
// The gated convolution is the first layer of the benchmark's models (arXiv:2312.04927, BaseConv in
// HazyResearch/zoology) with u = LN1 h:
//   y = u + conv3(u) o (W u + b)
// conv3 is a causal depthwise convolution of 3 taps with a bias of its own, o the product of
// channels, W (D, D). u is added inside, so the block computes h += u + conv3(u) o (W u + b).
// There is no output map and no activation. Like PyTorch's Conv1d, conv3 starts with weights and
// biases uniform in +-1/sqrt(3); W as other weights, b at 0. It has its biases for any model.bias.
//
// The block owns its activations and their gradients and reuses them while (B, T) stays the same.
// No gradient is overwritten within a step: work on side streams may still read it.
#pragma once

#include <optional>
#include <string>

#include "config/config.h"
#include "core/array.h"
#include "mixers/layer.h"
#include "mixers/parameters.h"
#include "ops/ops.h"

namespace vla_bench {

/// LayerNorm: offsets of its parameters in the flat buffer, and what its backward needs.
template <class T>
struct LayerNorm {
  Index weight = 0, bias = 0;  // offsets
  Array<T> mean, inverse_std;  // (M)

  LayerNorm(const std::string& name, Index channels, ParameterTable& table);
  /// y = the norm of x, plus `residual` (M, D) unless that is empty.
  void forward(const Context& context, Matrix<const T> x, const T* parameters,
               Matrix<const T> residual, Matrix<T> y);
  /// dx = residual + the gradient of x; dy must not change until ops::join_side_streams.
  void backward(const Context& context, Matrix<const T> x, const T* parameters, Matrix<const T> dy,
                Matrix<const T> residual, Matrix<T> dx, T* gradients);
};

/// y = u + conv3(u) o (W u + b), with its activations.
template <class T>
class GatedConv {
 public:
  /// Adds "<name>.projection" and "<name>.conv", as zoology calls them.
  GatedConv(const std::string& name, Index d_model, ParameterTable& table);

  /// y = residual + the layer's output; u, residual, y: (B * T, D).
  void forward(const Context& context, Index batch, Index tokens, Matrix<const T> u,
               const T* parameters, Matrix<const T> residual, Matrix<T> y);
  /// After forward. Overwrites du (B * T, D); u and dy must not change until
  /// ops::join_side_streams.
  void backward(const Context& context, Matrix<const T> u, const T* parameters, Matrix<const T> dy,
                Matrix<T> du, T* gradients);
  Index activation_elements(Index batch, Index tokens) const;

 private:
  static constexpr Index kTaps = ModelConfig::kGatedConvTaps;
  ops::ShortConv<T> convolution(Matrix<const T> u, const T* parameters) const;

  Index d_model_;
  Index projection_weight_, projection_bias_, conv_weight_, conv_bias_;  // offsets
  Index batch_ = 0, tokens_ = 0;                                         // of the last forward
  Array<T> convolved_, gate_;                                            // (M, D)
  Array<T> d_convolved_, d_gate_;                                        // (M, D)
};

template <class T>
class Block {
 public:
  /// Adds its parameters to `table` under "blocks.<index>.".
  Block(const ModelConfig& model, const MixerConfig& mixer, Device device,
        Implementation implementation, Index index, ParameterTable& table);

  /// Takes h (B * T, D); returns the block's output (B * T, D), valid until the next call.
  Matrix<const T> forward(const Context& context, Index batch, Index tokens, Matrix<const T> h,
                          const T* parameters, bool training);

  /// After forward(training) on the same h. Takes the gradient of the output (B * T, D), which must
  /// not change until ops::join_side_streams; returns that of h, valid until the next call.
  /// Parameter gradients accumulate.
  Matrix<const T> backward(const Context& context, Matrix<const T> h, const T* parameters,
                           Matrix<const T> d_output, T* gradients);

  /// Null where the layer is a gated convolution.
  const MixerLayer<T>* mixer() const { return mixer_ ? &*mixer_ : nullptr; }
  /// Bytes kept between forward and backward.
  Index activation_bytes(Index batch, Index tokens) const;

 private:
  struct ConvOffsets {
    Index weight = 0, bias = 0;
  };
  struct MlpOffsets {
    Index up_weight = 0, up_bias = 0, down_weight = 0, down_bias = 0;
  };

  void add_mlp(const ModelConfig& model, const std::string& prefix, ParameterTable& table);
  // Step 1 and step 2.
  void mix(const Context& context, Matrix<const T> h, const T* parameters, Matrix<T> middle,
           bool training);
  void mix_backward(const Context& context, const T* parameters, Matrix<const T> d_middle,
                    Matrix<T> d_normed1, T* gradients);
  void feed_forward(const Context& context, Matrix<const T> middle, const T* parameters,
                    Matrix<T> output);
  void feed_forward_backward(const Context& context, Matrix<const T> middle, const T* parameters,
                             Matrix<const T> d_output, Matrix<T> d_middle, T* gradients);
  ops::ShortConv<T> short_conv(const T* parameters) const;
  /// `array` as (B * T, width), resized.
  Matrix<T> matrix(const Context& context, Array<T>& array, Index width);

  Index d_model_;
  Index d_ff_;  // 0: no MLP
  Index taps_;  // 0: no short convolution
  // In the order of the parameter table.
  LayerNorm<T> ln1_;
  ConvOffsets conv_;
  std::optional<MixerLayer<T>> mixer_;  // one of these two
  std::optional<GatedConv<T>> gated_conv_;
  LayerNorm<T> ln2_;
  MlpOffsets mlp_;

  Index batch_ = 0, tokens_ = 0;  // of the last forward
  Array<T> normed1_;              // (M, D)
  Array<T> convolved_;            // (M, D), only with a short convolution
  Array<T> middle_;               // (M, D): h after the mixer
  Array<T> normed2_;              // (M, D), as the next two only with an MLP
  Array<T> hidden_;               // (M, F) before GELU
  Array<T> activated_;            // (M, F)
  Array<T> output_;               // (M, D)
  // Gradients.
  Array<T> d_hidden_;       // (M, F), of activated, then of hidden
  Array<T> d_normed2_;      // (M, D)
  Array<T> d_middle_;       // (M, D)
  Array<T> d_mixer_input_;  // (M, D), only with a short convolution
  Array<T> d_normed1_;      // (M, D)
  Array<T> d_input_;        // (M, D)
};

}  // namespace vla_bench
