#include "experiments/state_norm.h"

#include <cmath>
#include <limits>
#include <optional>

#include "core/count.h"
#include "experiments/cost.h"
#include "experiments/experiment.h"
#include "experiments/probe.h"
#include "experiments/record.h"
#include "mixers/penalty_memory.h"
#include "mixers/registry.h"

namespace vla_bench {

Index StateNorm::work(const RunConfig& config) {
  const Index memories = cores_flop(config, LatencyPass::forward, 1, 1);
  if (config.probe.source == ProbeSource::gaussian) return memories;
  return plus({memories, forward_flop(config, block_weights(config), 1, 0)});
}

CellResult StateNorm::run(const CellConfig& cell, const CellEnvironment& environment) {
  const RunConfig& config = cell.config;
  const Support support = probe_support(config, environment.context.device);
  if (!support.ok) return unmeasured(cell, environment, CellStatus::skipped, support.reason);

  const auto core = make_mixer_core<double>(config.mixers.front(), config.model.d_h, Device::cpu,
                                            Implementation::production);
  static constexpr Column measured[] = {s_norm, a_norm};
  return run_probe(cell, environment, *core, measured,
                   [](Index, const HeadMemory<double>& memory, std::span<double> norms) {
                     if (norms.empty()) return true;
                     const PenaltyMemory<double>* penalised = as_penalty_memory(memory);
                     norms[0] = memory.state_norm();
                     norms[1] = std::numeric_limits<double>::quiet_NaN();
                     if (penalised != nullptr) norms[1] = penalised->penalty_norm();
                     // A sum of squares leaves the range of double before the values do.
                     return std::isfinite(norms[0]) &&
                            (penalised == nullptr || std::isfinite(norms[1]));
                   });
}

}  // namespace vla_bench
