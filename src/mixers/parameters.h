// Names, shapes and offsets of parameters in one flat buffer.
#pragma once

#include <string>
#include <vector>

#include "core/array.h"
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

}  // namespace vla_bench
