#include "cli/golden.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cli/golden_detail.h"
#include "core/error.h"
#include "mixers/feature_map.h"
#include "mixers/linear/linear.h"

namespace vla_bench::cli {
namespace {

MixerKind read_mixer_kind(const GoldenFile& golden) {
  const std::string name = golden.tensors.text("mixer");
  std::string known;
  for (const auto& [kind, spelling] : enum_names<MixerKind>) {
    if (spelling == name) return kind;
    known += known.empty() ? "" : ", ";
    known += spelling;
  }
  throw BadInput(fmt::format("[{}] metadata \"mixer\": expected one of {}, got \"{}\"",
                             golden.origin, known, name));
}

/// Reads `value` when the key is there; throws BadInput when it is below `least`.
void read_number(const GoldenFile& golden, const char* key, double least, double& value) {
  if (!golden.tensors.metadata().contains(key)) return;
  const double number = golden.tensors.number(key);
  if (!(number >= least && std::isfinite(number))) {
    throw BadInput(fmt::format("[{}] metadata \"{}\": expected a number of at least {}, got {}",
                               golden.origin, key, least, number));
  }
  value = number;
}

MixerConfig read_mixer(const GoldenFile& golden) {
  MixerConfig mixer;
  mixer.mixer = read_mixer_kind(golden);
  // Files list constants that their mixer does not use; those are not looked at.
  const bool vla = mixer.mixer == MixerKind::vla;
  if (vla) {
    constexpr double kPositive = std::numeric_limits<double>::min();
    read_number(golden, "lambda_0", kPositive, mixer.lambda_0);
    read_number(golden, "stab_eps", kPositive, mixer.stab_eps);
    read_number(golden, "per_eps", 0.0, mixer.per_eps);
    if (golden.tensors.metadata().contains("period")) {
      mixer.period = golden.tensors.integer("period");
      if (mixer.period < 0) {
        throw BadInput(fmt::format("[{}] metadata \"period\": expected at least 0, got {}",
                                   golden.origin, mixer.period));
      }
    }
  }
  if (mixer.mixer == MixerKind::linear) {
    require_constant(golden, "eps", mixers::kLinearEpsilon);
  }
  if (vla || mixer.mixer == MixerKind::deltanet) {
    require_constant(golden, "normalize_eps", mixers::kUnitFloor);
  }
  if (vla || golden.kind != "mixer") {
    require_constant(golden, "ln_eps", ops::kLayerNormEpsilon);
  }
  return mixer;
}

}  // namespace

GoldenFile read_golden(const std::string& path) {
  GoldenFile golden{.origin = path, .tensors = TensorFile::read(path), .kind = {}, .mixer = {}};
  if (!golden.tensors.metadata().contains("kind")) {
    throw BadInput(fmt::format("[{}] no metadata \"kind\": this is not a golden file", path));
  }
  golden.kind = golden.tensors.text("kind");
  if (golden.kind != "mixer" && golden.kind != "model" && golden.kind != "train") {
    throw BadInput(fmt::format("[{}] metadata \"kind\": expected mixer, model or train, got \"{}\"",
                               path, golden.kind));
  }
  golden.mixer = read_mixer(golden);
  return golden;
}

template <class T>
std::vector<TensorError> verify_golden(const GoldenFile& golden, const Context& context,
                                       Implementation implementation) {
  if (golden.kind == "mixer") return verify_mixer<T>(golden, context, implementation);
  if (golden.kind == "model") return verify_model<T>(golden, context, implementation);
  return verify_training<T>(golden, context, implementation);
}

std::string tensor_kind(const std::string& tensor) {
  for (const std::string prefix : {"grad.", "final."}) {
    if (tensor.starts_with(prefix)) return prefix + "*";
  }
  return tensor;
}

template std::vector<TensorError> verify_golden<float>(const GoldenFile&, const Context&,
                                                       Implementation);
template std::vector<TensorError> verify_golden<double>(const GoldenFile&, const Context&,
                                                        Implementation);

}  // namespace vla_bench::cli
