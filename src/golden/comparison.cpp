#include "golden/comparison.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace vla_bench {
namespace {

double largest(std::span<const double> values) {
  double result = 0.0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

/// |difference| / scale; a stored tensor of zeros (scale 0) requires exact zeros.
double relative(double difference, double scale) {
  if (difference == 0.0) return 0.0;
  return scale > 0.0 ? difference / scale : std::numeric_limits<double>::infinity();
}

}  // namespace

Comparison::Comparison(const GoldenFile& golden) : golden_(golden) {
  for (const std::string& name : golden.tensors.names()) {
    if (!name.starts_with("grad.")) continue;
    largest_gradient_ = std::max(largest_gradient_, largest(golden.tensors.values<double>(name)));
  }
}

double Comparison::floor(const std::string& name) const {
  if (name.starts_with("grad.")) return kGradientFloor * largest_gradient_;
  return name.starts_with("final.") ? kFinalFloor : 0.0;
}

template <class T>
void Comparison::add(const std::string& name, std::span<const Index> shape,
                     std::span<const T> got) {
  const std::vector<double> expected = golden_.tensors.values<double>(name, shape);
  const double scale = std::max(largest(expected), floor(name));
  TensorError worst{.tensor = name};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto value = static_cast<double>(got[i]);
    const double error = relative(std::abs(value - expected[i]), scale);
    if (i > 0 && error <= worst.error) continue;
    worst = {.tensor = name,
             .error = error,
             .index = static_cast<Index>(i),
             .got = value,
             .expected = expected[i]};
    if (std::isnan(error)) break;
  }
  errors_.push_back(std::move(worst));
}

template <class T>
void Comparison::add_parameters(const std::string& prefix, const ParameterTable& table,
                                std::span<const T> got) {
  for (const Parameter& parameter : table.all()) {
    add(prefix + parameter.name, parameter.shape,
        got.subspan(static_cast<std::size_t>(parameter.offset),
                    static_cast<std::size_t>(parameter.size())));
  }
}

std::vector<TensorError> Comparison::finish() {
  for (const std::string& name : golden_.tensors.names()) {
    if (tensor_kind(name) == name) continue;
    const auto is_it = [&](const TensorError& error) { return error.tensor == name; };
    if (std::none_of(errors_.begin(), errors_.end(), is_it)) {
      throw BadInput(fmt::format("[{}] {}: {} has no such parameter", golden_.origin, name,
                                 golden_.mixer.name()));
    }
  }
  return std::move(errors_);
}

Index read_size(const GoldenFile& golden, const char* key, Index limit) {
  const Index size = golden.tensors.integer(key);
  if (size < 1 || size > limit) {
    throw BadInput(fmt::format("[{}] metadata \"{}\": expected 1 .. {}, got {}", golden.origin, key,
                               limit, size));
  }
  return size;
}

void require_constant(const GoldenFile& golden, const char* key, double expected) {
  if (!golden.tensors.metadata().contains(key)) return;
  const double number = golden.tensors.number(key);
  if (number != expected) {
    throw BadInput(fmt::format("[{}] metadata \"{}\": this program computes with {}, got {}",
                               golden.origin, key, expected, number));
  }
}

void require_shape(const GoldenFile& golden, const std::string& name,
                   std::span<const Index> shape) {
  const TensorEntry& entry = golden.tensors.at(name);
  if (!std::equal(shape.begin(), shape.end(), entry.shape.begin(), entry.shape.end())) {
    throw BadInput(fmt::format("[{}] {}: expected ({}), got ({})", golden.origin, name,
                               fmt::join(shape, ", "), fmt::join(entry.shape, ", ")));
  }
}

template <class T>
std::vector<T> read_parameters(const GoldenFile& golden, const ParameterTable& table) {
  for (const Parameter& parameter : table.all()) {
    require_shape(golden, parameter.name, parameter.shape);
  }
  std::vector<T> flat(static_cast<std::size_t>(table.size()));
  for (const Parameter& parameter : table.all()) {
    const std::vector<T> values = golden.tensors.values<T>(parameter.name, parameter.shape);
    std::copy(values.begin(), values.end(), flat.begin() + parameter.offset);
  }
  return flat;
}

template <class T>
void copy_to_device(const std::vector<T>& from, Array<T>& to) {
  device_copy(to.device(), to.data(), Device::cpu, from.data(), from.size() * sizeof(T));
}

template <class T>
std::vector<T> copy_to_host(const Array<T>& from) {
  std::vector<T> host(static_cast<std::size_t>(from.size()));
  device_copy(Device::cpu, host.data(), from.device(), from.data(), host.size() * sizeof(T));
  return host;
}

#define VLA_INSTANTIATE(T)                                                               \
  template void Comparison::add<T>(const std::string&, std::span<const Index>,           \
                                   std::span<const T>);                                  \
  template void Comparison::add_parameters<T>(const std::string&, const ParameterTable&, \
                                              std::span<const T>);                       \
  template std::vector<T> read_parameters<T>(const GoldenFile&, const ParameterTable&);  \
  template void copy_to_device<T>(const std::vector<T>&, Array<T>&);                     \
  template std::vector<T> copy_to_host<T>(const Array<T>&);
VLA_INSTANTIATE(float)
VLA_INSTANTIATE(double)
#undef VLA_INSTANTIATE

}  // namespace vla_bench
