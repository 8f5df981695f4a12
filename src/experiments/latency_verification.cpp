#include "experiments/latency_verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "config/read.h"
#include "experiments/core_buffers.h"
#include "experiments/worst_error.h"
#include "mixers/registry.h"

namespace vla_bench {
namespace {

constexpr Index kVerifiedTokens = 64;

// Some gradients vanish but for rounding; measure them against the file's largest instead.
constexpr double kGradientFloor = 1e-3;

/// max |actual - expected| / max(max |expected|, floor); infinity when a value is not a number.
double relative_error(const std::vector<float>& actual, const std::vector<double>& expected,
                      double floor) {
  return worst_error(actual, expected, std::max({largest(expected), floor, 1e-300}));
}

template <class T>
void run_passes(const Context& context, bool with_backward, MixerCore<T>& core,
                CoreBuffers<T>& buffers) {
  const CoreGradients<T> gradients = buffers.gradients();
  const CoreGradients<T>* wanted = with_backward ? &gradients : nullptr;
  prepare_core(core, context, buffers.inputs(), wanted);
  core.forward(context, buffers.inputs(), buffers.output(),
               with_backward ? &buffers.saved : nullptr);
  if (with_backward) core.backward(context, buffers.inputs(), gradients, buffers.saved);
  deliver_core(core, context, buffers.inputs(), buffers.output(), wanted);
}

}  // namespace

// float32: rounding (6e-8) summed over 64 tokens and amplified by the conditioning of a step (a
// few hundred at the published lambda_0) stays below 1e-3.
//
// bf16 occurs in softmax only, tf32 in chunks too. In softmax five roundings stand between inputs
// and gradients (q or k, v or the upstream gradient, p, dp - sum p dp, the result), each of at most
// u = 2^-8 (bf16) or 2^-11 (tf32) of its value: 5 u if all pointed one way. Tensor cores may cut
// tf32 operands off instead of rounding them, twice the error and always one way. Computed in
// double with these roundings put in, attention over 64 Gaussian tokens is off by 1.4 u, with
// cutting by 4.3 u; 8 u are allowed. In chunks the matrix beside S is a further chain of products:
// VLA's gradients are off by 1 to 3 u, by 9 u at d_h = 16 and lambda_0 = .01, kalman's, whose
// directions have length 1, by 8.8 u, rls's by 14 u, and of an output row of few channels that is
// small by chance 19 u; in tf32 24 u are allowed.
double allowed_error(Precision precision) {
  switch (precision) {
    case Precision::float32:
      return 1e-3;
    case Precision::tf32:
      return 24 * 0x1p-11;
    case Precision::bf16:
      return 8 * 0x1p-8;
  }
  throw std::logic_error("unknown precision");
}

/// The gradient of a core's parameter sums a term for every token, and a decay's term is itself a
/// difference of products: where they cancel, what is left has their rounding. In tf32 a sum over
/// 256 tokens and lanes was off by 88 u.
double allowed_error_of_sums(Precision precision, Index terms) {
  const double allowed = allowed_error(precision);
  return precision == Precision::float32 ? allowed
                                         : allowed * std::sqrt(static_cast<double>(terms)) / 4.0;
}

HeadDims verified_dims(const RunConfig& config) {
  return head_dims(config.model, config.latency.batch,
                   std::min(sequence_length(config), kVerifiedTokens));
}

std::string verify_against_reference(const RunConfig& config, const Context& context,
                                     Implementation implementation, MixerCore<float>& core) {
  const MixerConfig& mixer = config.mixers.front();
  const Context cpu{Device::cpu, context.threads};
  const HeadDims dims = verified_dims(config);
  const auto seed = static_cast<std::uint64_t>(config.seeds.front());
  const bool with_backward = pass_support(implementation, LatencyPass::backward).ok;
  CoreBuffers<float> actual(mixer, dims, context, seed);
  CoreBuffers<double> expected(mixer, dims, cpu, seed);
  run_passes(context, with_backward, core, actual);
  const auto reference =
      make_mixer_core<double>(mixer, config.model.d_h, Device::cpu, Implementation::reference);
  run_passes(cpu, with_backward, *reference, expected);

  // Without a backward both sides' gradients are the zeros they were made with.
  const std::vector<double> d_projections = to_host(expected.d_projections);
  const double floor = kGradientFloor * largest(d_projections);
  const Precision precision = implementation_precision(
      mixer, context.device, implementation,
      with_backward ? LatencyPass::backward : LatencyPass::forward, context.precision);
  struct Comparison {
    std::string name;
    double error, allowed;
  };
  const double allowed = allowed_error(precision);
  std::vector<Comparison> comparisons = {
      {"o", relative_error(to_host(actual.o), to_host(expected.o), 0.0), allowed},
      {"dq, dk, dv", relative_error(to_host(actual.d_projections), d_projections, floor), allowed},
  };
  const auto compare = [&](const char* name, const auto& actual_ones, const auto& expected_ones,
                           double allowed_one) {
    for (std::size_t i = 0; i < expected_ones.size(); ++i) {
      const double error = relative_error(to_host(actual_ones[i].gradients),
                                          to_host(expected_ones[i].gradients), floor);
      comparisons.push_back({fmt::format("{}[{}]", name, i), error, allowed_one});
    }
  };
  compare("dmore", actual.more, expected.more, allowed);
  compare("dparameters", actual.parameters, expected.parameters,
          allowed_error_of_sums(precision, dims.rows()));
  for (const Comparison& comparison : comparisons) {
    if (!(comparison.error <= comparison.allowed)) {
      return fmt::format(
          "[{}] {}: relative error {:.3g} against the reference over {} tokens, over {:g}",
          mixer.name(), comparison.name, comparison.error, dims.tokens, comparison.allowed);
    }
  }
  return {};
}

}  // namespace vla_bench
