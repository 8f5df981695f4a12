#include "mixers/parameters.h"

#include <fmt/format.h>

#include "core/error.h"

namespace vla_bench {

Index Parameter::size() const {
  Index size = 1;
  for (Index extent : shape) size *= extent;
  return size;
}

Index ParameterTable::add(std::string name, std::vector<Index> shape, Initialisation initialisation,
                          Index fan_in) {
  if (fan_in == 0) fan_in = shape.back();
  parameters_.push_back({std::move(name), std::move(shape), initialisation, size_, fan_in});
  size_ += parameters_.back().size();
  return parameters_.back().offset;
}

const Parameter& ParameterTable::at(const std::string& name) const {
  for (const Parameter& parameter : parameters_) {
    if (parameter.name == name) return parameter;
  }
  throw BadInput(fmt::format("no parameter is called {}", name));
}

}  // namespace vla_bench
