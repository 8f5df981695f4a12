// A mixer as a model sees it: projections, core, optional LayerNorm, output map.
//   q, k, v = W_q x, W_k x, W_v x (+ biases);  further maps of x or of the raw keys;
//   o = core(q, k, v, ...);  y = W_o [LN](o) + b_o.
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
  /// Adds this layer's parameters to `table` under `prefix` ("blocks.0.attn." or "").
  MixerLayer(const MixerConfig& config, Index n_heads, Index d_h, Device device,
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
  MixerLayer(MixerLayout layout, std::unique_ptr<MixerCore<T>> core, Index n_heads, Index d_h,
             const std::string& prefix, ParameterTable& table);

  /// The core's inputs of the last forward, without its parameters; for probes.
  CoreInputs<T> core_inputs() const;
  const MixerCore<T>& core() const { return *core_; }
  const MixerLayout& layout() const { return layout_; }
  /// Bytes kept between forward and backward for this shape.
  Index activation_bytes(Index batch, Index tokens) const;

 private:
  struct Offsets {
    Index weight = 0, bias = 0;
  };
  /// A projection beyond q, k and v.
  struct Further {
    Projection projection;
    Offsets offsets;
    Array<T> values, gradients;  // (M, H w)
  };

  Index width(const Further& further) const { return n_heads_ * further.projection.width; }
  /// Parameter gradients and `d_source` accumulate.
  void backward_further(const Context& context, const Further& further, Matrix<const T> source,
                        Matrix<T> d_source, const T* parameters, T* gradients) const;

  MixerLayout layout_;
  Index n_heads_;
  Index d_h_;
  std::unique_ptr<MixerCore<T>> core_;
  Offsets qkv_, norm_, output_;
  std::vector<Further> further_;
  std::vector<Index> core_parameters_;  // offsets, as the layout's
  HeadDims dims_;
  // Activations of the last forward and scratch of the backward.
  Array<T> projections_;         // (M, 3 D): q, k, v
  Array<T> o_;                   // (M, D)
  Array<T> normed_;              // (M, D)
  Array<T> mean_, inverse_std_;  // (M)
  Array<T> saved_;               // the core's
  Array<T> d_projections_;       // (M, 3 D)
  Array<T> d_o_;                 // (M, D)
  Array<T> d_normed_;            // (M, D)
};

}  // namespace vla_bench
