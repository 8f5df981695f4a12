// Golden files: double-precision results of the published model code, recomputed and compared.
// There are four kinds, given by the metadata key "kind":
//   mixer  x, dy, parameters -> y, dx, grad.<parameter>, S_norm and A_norm over t
//   model  tokens x, targets y, parameters -> logits, loss, grad.<parameter>
//   train  start parameters, one batch per step -> loss, grad_norm, lr, final.<parameter>
//   rule   q, k, v and gates as the mixer's recurrence takes them, d_o -> o, grad.<input>
// The recomputation uses the program's production path (MixerLayer, TinyLm,
// request_optimiser_step; of a rule only its core), or the same path with the double reference
// cores.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "core/safetensors.h"
#include "ops/ops.h"

namespace vla_bench {

/// The error of one recomputed tensor relative to the stored one.
struct TensorError {
  std::string tensor;
  double error = 0.0;                // max |a - b| / denominator; NaN when a value is not a number
  Index index = 0;                   // of the worst element, row-major
  double got = 0.0, expected = 0.0;  // at that element
};

/// The denominator is max |b| of a tensor; for grad.* at least this fraction of the file's largest
/// gradient, and for final.* at least this value: some gradients vanish identically and hold only
/// rounding noise, which Adam then magnifies.
inline constexpr double kGradientFloor = 1e-3;
inline constexpr double kFinalFloor = 0.01;

/// Largest accepted relative errors: an independent float64 implementation agreed to 1.4e-13, and
/// float32 carries 2^-24 through some hundred operations per value.
inline constexpr double kGoldenTolerance64 = 1e-9;
inline constexpr double kGoldenTolerance32 = 1e-4;

struct GoldenFile {
  std::string origin;  // for messages
  TensorFile tensors;
  std::string kind;  // "mixer", "model", "train" or "rule"
  MixerConfig mixer;
};

/// Reads a file and its metadata. Throws BadInput when it is not a golden file, or has a constant
/// that differs from this program's.
GoldenFile read_golden(const std::string& path);

/// Recomputes every stored result in T. Implementation::reference needs T = double on the CPU.
/// Throws BadInput when tensors are missing, of the wrong shape, or name an unknown parameter.
template <class T>
std::vector<TensorError> verify_golden(const GoldenFile& golden, const Context& context,
                                       Implementation implementation);

/// "grad.*" for "grad.Wq.weight", "final.*" likewise, else the name itself.
std::string tensor_kind(const std::string& tensor);

/// The worst tensor of each kind, in order of appearance.
std::vector<TensorError> worst_of_each_kind(const std::vector<TensorError>& errors);

}  // namespace vla_bench
