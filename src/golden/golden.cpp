#include "golden/golden.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "config/read.h"
#include "core/error.h"
#include "golden/comparison.h"
#include "mixers/features.h"
#include "mixers/linear/linear.h"

namespace vla_bench {
namespace {

/// Checks the constants that the published code adds to denominators, for any mixer.
void require_constants(const GoldenFile& golden) {
  require_constant(golden, "scale", 1.0);  // of a rule's queries
  require_constant(golden, "eps", mixers::LinearRule::kFloor);
  require_constant(golden, "normalize_eps", mixers::kUnitFloor);
  require_constant(golden, "ln_eps", ops::kLayerNormEpsilon);
}

bool worse(const TensorError& a, const TensorError& b) {
  return std::isnan(a.error) || (!std::isnan(b.error) && a.error > b.error);
}

}  // namespace

GoldenFile read_golden(const std::string& path) {
  GoldenFile golden{.origin = path, .tensors = TensorFile::read(path), .kind = {}, .mixer = {}};
  if (!golden.tensors.metadata().contains("kind")) {
    throw BadInput(fmt::format("[{}] no metadata \"kind\": this is not a golden file", path));
  }
  golden.kind = golden.tensors.text("kind");
  if (golden.kind != "mixer" && golden.kind != "model" && golden.kind != "train" &&
      golden.kind != "rule") {
    throw BadInput(
        fmt::format("[{}] metadata \"kind\": expected mixer, model, train or rule, got \"{}\"",
                    path, golden.kind));
  }
  golden.mixer.options = golden.kind == "rule" ? mixer_of_rule(golden.tensors.text("rule"), path)
                                               : read_mixer(golden.tensors.metadata(),
                                                            fmt::format("[{}] metadata", path));
  require_constants(golden);
  return golden;
}

template <class T>
std::vector<TensorError> verify_golden(const GoldenFile& golden, const Context& context,
                                       Implementation implementation) {
  if (golden.kind == "mixer") return verify_mixer<T>(golden, context, implementation);
  if (golden.kind == "model") return verify_model<T>(golden, context, implementation);
  if (golden.kind == "rule") return verify_rule<T>(golden, context, implementation);
  return verify_training<T>(golden, context, implementation);
}

std::string tensor_kind(const std::string& tensor) {
  for (const std::string prefix : {"grad.", "final."}) {
    if (tensor.starts_with(prefix)) return prefix + "*";
  }
  return tensor;
}

std::vector<TensorError> worst_of_each_kind(const std::vector<TensorError>& errors) {
  std::vector<TensorError> worst;
  for (const TensorError& error : errors) {
    const auto same_kind = [&](const TensorError& other) {
      return tensor_kind(other.tensor) == tensor_kind(error.tensor);
    };
    const auto known = std::find_if(worst.begin(), worst.end(), same_kind);
    if (known == worst.end()) {
      worst.push_back(error);
    } else if (worse(error, *known)) {
      *known = error;
    }
  }
  return worst;
}

template std::vector<TensorError> verify_golden<float>(const GoldenFile&, const Context&,
                                                       Implementation);
template std::vector<TensorError> verify_golden<double>(const GoldenFile&, const Context&,
                                                        Implementation);

}  // namespace vla_bench
