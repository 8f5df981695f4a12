// The layout of a mixer's layer: projections, further parameters, convolutions, output norm. Names
// follow the golden files (a PyTorch state_dict).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/enums.h"
#include "core/array.h"

namespace vla_bench {

/// Initial values of a parameter (the protocol: weights N(0, init_std), biases 0, LayerNorm 1 and
/// 0; short convolutions uniform in +-1/sqrt(taps), torch's default for Conv1d; scaled_normal
/// N(0, init_std / sqrt(2 n_layers)), for the last maps of residual branches). Of a decay by
/// exp(-exp(a) softplus(x + b)) (arXiv:2405.21060): decay_rate, for a, the logarithm of a uniform
/// draw from [1, 16]; decay_step, for b, such that softplus(b) is log-uniform in [1e-3, 0.1].
enum class Initialisation {
  normal,
  scaled_normal,
  zeros,
  ones,
  uniform_fan_in,
  decay_rate,
  decay_step
};

/// A linear map of the layer's input, or of the raw keys of all heads, to `width` channels per
/// head. With `through` it is two: "<name>.0" without bias to that many channels in all, and
/// "<name>.1" from them.
struct Projection {
  enum class Source { token, key };

  std::string name;
  Index width = 0;
  Source source = Source::token;
  bool bias = true;
  Index through = 0;  // 0: one map
};

/// A parameter that the core itself reads: a flat array (H, shape...).
struct CoreParameter {
  std::string name;
  std::vector<Index> shape{};  // of one head; empty: a number
  Initialisation initialisation = Initialisation::zeros;
};

struct MixerLayout {
  /// The maps of the input to q, k and v: three names, or the one of a joint map.
  std::vector<std::string> qkv = {"Wq", "Wk", "Wv"};
  Index key_width = 0;             // channels of a head's q and k; 0: d
  std::vector<Projection> more{};  // beyond q, k and v: at most kMostMore
  std::vector<CoreParameter> parameters{};
  /// Whether q, k and v can have convolutions of their own (model.short_conv_qkv).
  bool convolutions = true;
  bool output_norm = false;  // "norm_o", before the output map
  OutputNorm output_norm_kind = OutputNorm::layer;
  /// Of an RMSNorm. flash-linear-attention normalises S q / sqrt(d): a mixer with such a layer has
  /// d times this, since the factor only moves epsilon.
  double rms_epsilon = kRmsEpsilon;
  std::string output = "Wo";

  static constexpr double kRmsEpsilon = 1e-5;

  Index key_channels(Index d) const { return key_width > 0 ? key_width : d; }
};

/// Most projections beyond q, k and v, and most parameters, that a mixer can have.
inline constexpr std::size_t kMostMore = 4;

}  // namespace vla_bench
