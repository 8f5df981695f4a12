// Names, shapes and offsets of parameters in one flat buffer.
#pragma once

#include <string>
#include <vector>

#include "core/array.h"
#include "core/rng.h"
#include "mixers/layout.h"

namespace vla_bench {

struct Parameter {
  std::string name;  // as in a PyTorch state_dict
  std::vector<Index> shape;
  Initialisation initialisation;
  Index offset = 0;  // into the flat buffer, elements
  Index fan_in = 0;  // inputs of an output, for uniform_fan_in

  Index size() const;
};

/// In the order of the flat buffer. Maps of the same input are adjacent, weights then biases, so
/// that one product computes Wq, Wk and Wv.
class ParameterTable {
 public:
  /// Returns the offset. A `fan_in` of 0 stands for the last extent of the shape.
  Index add(std::string name, std::vector<Index> shape, Initialisation initialisation,
            Index fan_in = 0);
  const std::vector<Parameter>& all() const { return parameters_; }
  const Parameter& at(const std::string& name) const;  // throws BadInput naming it
  Index size() const { return size_; }

 private:
  std::vector<Parameter> parameters_;
  Index size_ = 0;
};

/// What initial values depend on beside the parameter.
struct InitialScale {
  double init_std = 0.02;
  Index n_layers = 1;
};
/// Draws one initial value.
double initial_value(const Parameter& parameter, const InitialScale& scale, Rng& rng);

/// Initial values of the parameters that a core itself reads, one array (H, ...) each, exact in
/// float: for probes and timings without a model.
std::vector<std::vector<double>> initial_core_parameters(const MixerLayout& layout, Index heads,
                                                         std::uint64_t seed);

/// Shape and size of a core's parameter with `heads` heads.
std::vector<Index> core_parameter_shape(const CoreParameter& parameter, Index heads);
Index core_parameter_size(const CoreParameter& parameter, Index heads);

}  // namespace vla_bench
