// The layout of a mixer's layer: projections, further parameters, output norm. Names follow the
// golden files (a PyTorch state_dict).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/array.h"

namespace vla_bench {

/// Initial values of a parameter (the protocol: weights N(0, init_std), biases 0, LayerNorm 1 and
/// 0; short convolutions uniform in +-1/sqrt(taps), torch's default for Conv1d).
enum class Initialisation { normal, zeros, ones, uniform_fan_in };

/// A linear map of the layer's input, or of the raw keys of all heads, to `width` channels per
/// head.
struct Projection {
  enum class Source { token, key };

  std::string name;
  Index width = 0;
  Source source = Source::token;
  bool bias = true;
};

/// A parameter that the core itself reads, as a flat array of the given shape.
struct CoreParameter {
  std::string name;
  std::vector<Index> shape;
  Initialisation initialisation = Initialisation::zeros;
};

struct MixerLayout {
  /// The maps of the input to q, k and v, all with biases: three names, or the one of a joint map.
  std::vector<std::string> qkv = {"Wq", "Wk", "Wv"};
  std::vector<Projection> more{};  // beyond q, k and v: at most kMostMore
  std::vector<CoreParameter> parameters{};
  bool output_norm = false;  // "norm_o": LayerNorm over D before the output map
  std::string output = "Wo";
};

/// Most projections beyond q, k and v, and most parameters, that a mixer can have.
inline constexpr std::size_t kMostMore = 4;

}  // namespace vla_bench
