// Claims C1 and C3: how the Frobenius norms of the memory S_t and of the penalty inverse A_t move
// along a sequence, averaged over heads.
#include <cmath>

#include "experiments/experiment.h"
#include "experiments/probe.h"
#include "experiments/record.h"
#include "mixers/registry.h"

namespace vla_bench {

CellResult run_state_norm(const CellConfig& cell, const CellEnvironment& environment) {
  const RunConfig& config = cell.config;
  const Support support = probe_support(config, environment.context.device);
  if (!support.ok) return unmeasured(cell, environment, CellStatus::skipped, support.reason);

  const auto core = make_mixer_core<double>(config.mixers.front(), config.model.d_h, Device::cpu,
                                            Implementation::production);
  const bool has_penalty = core->memory()->penalty_norm().has_value();
  const Index heads = config.model.n_heads;
  const std::vector<Index> recorded = recorded_tokens(sequence_length(config));
  const auto count = static_cast<Index>(recorded.size());
  std::vector<double> s_norm(static_cast<std::size_t>(heads * count));  // (H, count)
  std::vector<double> a_norm(s_norm.size());                            // (H, count)
  std::vector<Index> next(static_cast<std::size_t>(heads), 0);          // (H), into recorded

  const ProbeEnd end = probe_heads(
      config, environment, *core, [&](Index head, Index t, const HeadMemory<double>& memory) {
        Index& column = next[static_cast<std::size_t>(head)];
        if (recorded[static_cast<std::size_t>(column)] != t) return true;
        const auto slot = static_cast<std::size_t>(head * count + column++);
        s_norm[slot] = memory.state_norm();
        a_norm[slot] = memory.penalty_norm().value_or(0.0);
        // A sum of squares leaves the range of double before the values do.
        return std::isfinite(s_norm[slot]) && std::isfinite(a_norm[slot]);
      });
  if (end.interrupted) {
    return unmeasured(cell, environment, CellStatus::interrupted, "stopped");
  }

  CellResult result;
  result.table = Table(state_norm_schema());
  end.report(result);
  for (Index column = 0; column < count; ++column) {
    if (!end.finite(recorded[static_cast<std::size_t>(column)])) break;
    Record record(state_norm_schema(), config, environment.context.device);
    record.set("t", recorded[static_cast<std::size_t>(column)])
        .set("s_norm", mean_over_heads(s_norm, heads, column));
    if (has_penalty) record.set("a_norm", mean_over_heads(a_norm, heads, column));
    result.table.add(record.values());
  }
  return result;
}

}  // namespace vla_bench
