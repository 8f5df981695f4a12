#include "experiments/jacobian.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/count.h"
#include "experiments/cost.h"
#include "experiments/experiment.h"
#include "experiments/jacobian_matrix.h"
#include "experiments/probe.h"
#include "experiments/record.h"
#include "experiments/state_norm.h"
#include "mixers/registry.h"
#include "mixers/value_groups.h"

namespace vla_bench {
namespace {

// For larger entries the SVD's squares overflow.
constexpr double kLargestNorm = 1e150;

/// Whether the mixer's step has the form S J + ...; takes one step to find out.
bool has_step_jacobian(const RunConfig& config, const MixerCore<double>& core) {
  const auto memory = head_memory(core, head_dims(config.model, 1, 1));
  const Index d = config.model.d_h;
  const Index widest = std::max(config.model.value_channels(),
                                mixer_layout(config.mixers.front(), d).key_channels(d));
  const std::vector<double> ones(static_cast<std::size_t>(widest), 1.0);
  std::vector<double> out(ones.size());
  TokenInputs<double> token{ones.data(), ones.data(), ones.data()};
  token.more.fill(ones.data());
  token.parameters.fill(ones.data());
  memory->step(token, out.data());
  return memory->jacobian().has_value();
}

}  // namespace

Index Jacobian::work(const RunConfig& config) {
  const Index d = config.model.d_h;
  const Index heads = config.model.n_heads;
  const Index tokens = sequence_length(config);
  // Jacobi's SVD: some six sweeps over d^2 / 2 pairs, each of which turns two rows and two columns
  // of d numbers (12 d operations).
  const Index svd = times({36, d, d, d});
  const auto recorded = static_cast<Index>(recorded_tokens(tokens).size());
  return plus(
      {StateNorm::work(config), times({4, heads, tokens, d, d}), times({2, heads, recorded, svd})});
}

CellResult Jacobian::run(const CellConfig& cell, const CellEnvironment& environment) {
  const RunConfig& config = cell.config;
  const Support support = probe_support(config, environment.context.device);
  if (!support.ok) return unmeasured(cell, environment, CellStatus::skipped, support.reason);
  const auto core = make_mixer_core<double>(config.mixers.front(), config.model.d_h, Device::cpu,
                                            Implementation::production);
  if (!has_step_jacobian(config, *core)) {
    return unmeasured(cell, environment, CellStatus::skipped,
                      fmt::format("the step of {} is not of the form S D (I - k a^T)",
                                  mixer_label(config.mixers.front())));
  }

  std::vector<JacobianProduct> products(static_cast<std::size_t>(config.model.n_heads),
                                        JacobianProduct(config.model.d_h));
  // Linear attention has k = a = 0: no angle, J = I.
  static constexpr Column measured[] = {sigma_max, sigma_closed_form, product_norm, cosine};
  return run_probe(cell, environment, *core, measured,
                   [&](Index head, const HeadMemory<double>& memory, std::span<double> values) {
                     const StepJacobian step = memory.jacobian().value();
                     JacobianProduct& product = products[static_cast<std::size_t>(head)];
                     product.multiply(step);
                     if (values.empty()) return true;
                     const ClosedForm closed_form = vla_bench::closed_form(step);
                     // Written so that NaN fails too.
                     if (!(closed_form.norm <= kLargestNorm)) return false;
                     values[0] = checked_spectral_norm(step_matrix(step), closed_form);
                     values[1] = closed_form.norm;
                     values[2] = product.norm();
                     values[3] = vla_bench::cosine(step.k, step.a);
                     return true;
                   });
}

}  // namespace vla_bench
