// One pre-norm block of TinyLM:
//   1. h += mixer([short convolution](LN1 h))
//   2. h += W2 gelu(W1 LN2 h + b1) + b2
// The block owns its activations and their gradients and reuses them while (B, T) stays the same.
// No gradient is overwritten within a step: work on side streams may still read it.
#pragma once

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
  void forward(const Context& context, Matrix<const T> x, const T* parameters, Matrix<T> y);
  /// dx = residual + the gradient of x; dy must not change until ops::join_side_streams.
  void backward(const Context& context, Matrix<const T> x, const T* parameters, Matrix<const T> dy,
                Matrix<const T> residual, Matrix<T> dx, T* gradients);
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

  const MixerLayer<T>& mixer() const { return mixer_; }
  /// Bytes kept between forward and backward.
  Index activation_bytes(Index batch, Index tokens) const;

 private:
  struct ConvOffsets {
    Index weight = 0, bias = 0;
  };
  struct MlpOffsets {
    Index up_weight = 0, up_bias = 0, down_weight = 0, down_bias = 0;
  };

  ops::ShortConv<T> short_conv(const T* parameters) const;
  /// `array` as (B * T, width), resized.
  Matrix<T> matrix(const Context& context, Array<T>& array, Index width);

  Index d_model_;
  Index d_ff_;
  Index taps_;  // 0: no short convolution
  // In the order of the parameter table.
  LayerNorm<T> ln1_;
  ConvOffsets conv_;
  MixerLayer<T> mixer_;
  LayerNorm<T> ln2_;
  MlpOffsets mlp_;

  Index batch_ = 0, tokens_ = 0;  // of the last forward
  Array<T> normed1_;              // (M, D)
  Array<T> convolved_;            // (M, D), only with a short convolution
  Array<T> middle_;               // (M, D): h after the mixer
  Array<T> normed2_;              // (M, D)
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
