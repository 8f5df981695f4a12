// Golden files: double-precision results of the published model code, recomputed and compared.
// Three kinds, told apart by the metadata key "kind":
//   mixer  x, dy, parameters -> y, dx, grad.<parameter>, S_norm and A_norm over t
//   model  tokens x, targets y, parameters -> logits, loss, grad.<parameter>
//   train  start parameters, one batch a step -> loss, grad_norm, lr, final.<parameter>
// Everything runs through the program's own production path (MixerLayer, TinyLm,
// request_optimiser_step), or through the same path with the double reference cores.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "core/safetensors.h"
#include "ops/ops.h"

namespace vla_bench {

/// How far one recomputed tensor is from the stored one.
struct TensorError {
  std::string tensor;
  double error = 0.0;  // max |a - b| over the denominator; NaN when a value is not a number
  Index index = 0;     // of the worst element, row-major
  double got = 0.0, expected = 0.0;  // there
};

/// The denominators are max |b| of a tensor; for grad.* at least this fraction of the file's
/// largest gradient, and for final.* at least this value: some gradients vanish identically and
/// hold only rounding noise, which Adam then magnifies.
inline constexpr double kGradientFloor = 1e-3;
inline constexpr double kFinalFloor = 0.01;

/// Relative errors that a recomputation may have: in float64 others of the files agreed to 1.4e-13,
/// and float32 carries 2^-24 through some hundred operations a value.
inline constexpr double kGoldenTolerance64 = 1e-9;
inline constexpr double kGoldenTolerance32 = 1e-4;

struct GoldenFile {
  std::string origin;  // for messages
  TensorFile tensors;
  std::string kind;  // "mixer", "model" or "train"
  MixerConfig mixer;
};

/// Reads a file and its metadata. Throws BadInput when it is no golden file, or names a constant
/// that this program does not share.
GoldenFile read_golden(const std::string& path);

/// Recomputes every stored result in T. Implementation::reference needs T = double on the CPU.
/// Throws BadInput when tensors are missing, of the wrong shape, or name an unknown parameter.
template <class T>
std::vector<TensorError> verify_golden(const GoldenFile& golden, const Context& context,
                                       Implementation implementation);

/// "grad.*" of "grad.Wq.weight", "final.*" likewise, else the name itself.
std::string tensor_kind(const std::string& tensor);

/// The worst tensor of each kind, in order of appearance.
std::vector<TensorError> worst_of_each_kind(const std::vector<TensorError>& errors);

}  // namespace vla_bench
