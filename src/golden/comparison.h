// Shared by the recomputations of the four kinds of golden file. Internal to golden.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "golden/golden.h"
#include "mixers/parameters.h"

namespace vla_bench {

/// Compares recomputed tensors with the stored ones and collects the errors.
class Comparison {
 public:
  explicit Comparison(const GoldenFile& golden);

  /// Compares a result with the stored tensor of that name and shape.
  template <class T>
  void add(const std::string& name, std::span<const Index> shape, std::span<const T> got);
  /// The same for each parameter: `got` is a flat buffer in table order, and the tensors' names are
  /// <prefix><parameter>.
  template <class T>
  void add_parameters(const std::string& prefix, const ParameterTable& table,
                      std::span<const T> got);

  /// Throws BadInput when the file holds a result (grad.*, final.*) that was not compared.
  std::vector<TensorError> finish();

 private:
  double floor(const std::string& name) const;

  const GoldenFile& golden_;
  double largest_gradient_ = 0.0;
  std::vector<TensorError> errors_;
};

inline constexpr Index kLargestSize = Index{1} << 31;  // products of two sizes stay in range

/// Reads a size from the metadata. Throws BadInput unless it is in 1 .. `limit`.
Index read_size(const GoldenFile& golden, const char* key, Index limit);

/// Throws BadInput unless the metadata key, when present, holds `expected`.
void require_constant(const GoldenFile& golden, const char* key, double expected);

/// Throws BadInput unless the tensor has this shape. Call it before allocating memory by sizes from
/// the metadata.
void require_shape(const GoldenFile& golden, const std::string& name, std::span<const Index> shape);

/// Reads all parameters in table order.
template <class T>
std::vector<T> read_parameters(const GoldenFile& golden, const ParameterTable& table);

template <class T>
void copy_to_device(const std::vector<T>& from, Array<T>& to);
template <class T>
std::vector<T> copy_to_host(const Array<T>& from);

template <class T>
std::vector<TensorError> verify_mixer(const GoldenFile& golden, const Context& context,
                                      Implementation implementation);
template <class T>
std::vector<TensorError> verify_model(const GoldenFile& golden, const Context& context,
                                      Implementation implementation);
template <class T>
std::vector<TensorError> verify_training(const GoldenFile& golden, const Context& context,
                                         Implementation implementation);
template <class T>
std::vector<TensorError> verify_rule(const GoldenFile& golden, const Context& context,
                                     Implementation implementation);

/// The mixer of a rule's file, taking its inputs as the file holds them. Throws BadInput naming the
/// rule when this program has none.
MixerOptions mixer_of_rule(const std::string& rule, const std::string& origin);

}  // namespace vla_bench
