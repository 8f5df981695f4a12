// Claim C2 along a sequence: sigma_max(J_t) by SVD and by the closed form, the cosine between key
// and write direction, and the norm of the product of all Jacobians so far; means over heads.
#include "experiments/jacobian.h"

#include <fmt/format.h>

#include <cmath>

#include "experiments/experiment.h"
#include "experiments/probe.h"
#include "experiments/record.h"
#include "mixers/registry.h"

namespace vla_bench {
namespace {

// Beyond it the SVD's own squares leave the range of double.
constexpr double kLargestNorm = 1e150;

/// Whether the mixer's step has the form S J + ..., found by taking one.
bool has_step_jacobian(const RunConfig& config, const MixerCore<double>& core) {
  const auto memory = core.memory();
  const std::vector<double> ones(static_cast<std::size_t>(config.model.d_h), 1.0);
  std::vector<double> out(ones.size());
  const bool has_aux = mixer_traits(config.mixers.front()).aux_source != AuxSource::none;
  memory->step(ones.data(), ones.data(), ones.data(), has_aux ? ones.data() : nullptr, out.data());
  return memory->jacobian().has_value();
}

}  // namespace

CellResult run_jacobian(const CellConfig& cell, const CellEnvironment& environment) {
  const RunConfig& config = cell.config;
  const Support support = probe_support(config, environment.context.device);
  if (!support.ok) return unmeasured(cell, environment, CellStatus::skipped, support.reason);
  const auto core = make_mixer_core<double>(config.mixers.front(), config.model.d_h, Device::cpu,
                                            Implementation::production);
  if (!has_step_jacobian(config, *core)) {
    return unmeasured(cell, environment, CellStatus::skipped,
                      fmt::format("the step of {} is not of the form S (I - k a^T)",
                                  mixer_label(config.mixers.front())));
  }

  const Index heads = config.model.n_heads;
  const std::vector<Index> recorded = recorded_tokens(sequence_length(config));
  const auto count = static_cast<Index>(recorded.size());
  std::vector<double> sigma(static_cast<std::size_t>(heads * count));  // (H, count)
  std::vector<double> closed(sigma.size());                            // (H, count)
  std::vector<double> cosines(sigma.size());                           // (H, count)
  std::vector<double> product_norm(sigma.size());                      // (H, count)
  std::vector<Index> next(static_cast<std::size_t>(heads), 0);         // (H), into recorded
  std::vector<JacobianProduct> products(static_cast<std::size_t>(heads),
                                        JacobianProduct(config.model.d_h));

  const ProbeEnd end = probe_heads(
      config, environment, *core, [&](Index head, Index t, const HeadMemory<double>& memory) {
        const StepJacobian step = memory.jacobian().value();
        JacobianProduct& product = products[static_cast<std::size_t>(head)];
        product.multiply(step.k, step.a);
        Index& column = next[static_cast<std::size_t>(head)];
        if (recorded[static_cast<std::size_t>(column)] != t) return true;
        const double closed_form = rank_one_spectral_norm(step.k, step.a);
        // Written so that NaN fails too.
        if (!(closed_form <= kLargestNorm)) return false;
        const auto slot = static_cast<std::size_t>(head * count + column++);
        sigma[slot] = checked_spectral_norm(step_matrix(step.k, step.a), closed_form);
        closed[slot] = closed_form;
        cosines[slot] = cosine(step.k, step.a);
        product_norm[slot] = product.norm();
        return true;
      });
  if (end.interrupted) {
    return unmeasured(cell, environment, CellStatus::interrupted, "stopped");
  }

  CellResult result;
  result.table = Table(jacobian_schema());
  end.report(result);
  for (Index column = 0; column < count; ++column) {
    if (!end.finite(recorded[static_cast<std::size_t>(column)])) break;
    Record record(jacobian_schema(), config, environment.context.device);
    record.set("t", recorded[static_cast<std::size_t>(column)])
        .set("sigma_max", mean_over_heads(sigma, heads, column))
        .set("sigma_closed_form", mean_over_heads(closed, heads, column))
        .set("product_norm", mean_over_heads(product_norm, heads, column));
    // Linear attention has k = a = 0: no angle, J = I.
    const double mean_cosine = mean_over_heads(cosines, heads, column);
    if (std::isfinite(mean_cosine)) record.set("cosine", mean_cosine);
    result.table.add(record.values());
  }
  return result;
}

}  // namespace vla_bench
