#include "mixers/parameters.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"

namespace vla_bench {

namespace {

Index size_of(const std::vector<Index>& shape) {
  Index size = 1;
  for (Index extent : shape) size *= extent;
  return size;
}

}  // namespace

Index Parameter::size() const { return size_of(shape); }

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

double initial_value(const Parameter& parameter, const InitialScale& scale, Rng& rng) {
  switch (parameter.initialisation) {
    case Initialisation::normal:
      return scale.init_std * rng.normal();
    case Initialisation::scaled_normal:
      return scale.init_std / std::sqrt(2.0 * static_cast<double>(scale.n_layers)) * rng.normal();
    case Initialisation::zeros:
      return 0.0;
    case Initialisation::ones:
      return 1.0;
    case Initialisation::uniform_fan_in: {
      const double bound = 1.0 / std::sqrt(static_cast<double>(parameter.fan_in));
      return bound * (2.0 * rng.uniform() - 1.0);
    }
    case Initialisation::decay_rate:
      return std::log(1.0 + 15.0 * rng.uniform());
    case Initialisation::decay_step: {
      const double step = 1e-3 * std::pow(100.0, rng.uniform());
      return std::log(std::expm1(step));  // softplus^-1
    }
  }
  return 0.0;
}

std::vector<Index> core_parameter_shape(const CoreParameter& parameter, Index heads) {
  std::vector<Index> shape = {heads};
  shape.insert(shape.end(), parameter.shape.begin(), parameter.shape.end());
  return shape;
}

Index core_parameter_size(const CoreParameter& parameter, Index heads) {
  return size_of(core_parameter_shape(parameter, heads));
}

std::vector<std::vector<double>> initial_core_parameters(const MixerLayout& layout, Index heads,
                                                         std::uint64_t seed) {
  ParameterTable table;
  for (const CoreParameter& parameter : layout.parameters) {
    table.add(parameter.name, core_parameter_shape(parameter, heads), parameter.initialisation);
  }
  std::vector<std::vector<double>> values;
  for (const Parameter& parameter : table.all()) {
    Rng rng(seed, RngStream::parameters, static_cast<std::uint32_t>(values.size()), 0);
    std::vector<double>& drawn = values.emplace_back(static_cast<std::size_t>(parameter.size()));
    for (double& value : drawn) value = static_cast<float>(initial_value(parameter, {}, rng));
  }
  return values;
}

}  // namespace vla_bench
