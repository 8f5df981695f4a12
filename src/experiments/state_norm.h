// state_norm: the Frobenius norms of the memory S_t and of the penalty inverse A_t along a
// sequence, averaged over heads (claims C1 and C3).
#pragma once

#include "experiments/declaration.h"

namespace vla_bench {

struct StateNorm : Probe {
  static constexpr std::string_view name = "state_norm";

  static const Schema& table() {
    static const Schema schema{name, {label, mixer, seed, t, s_norm, a_norm, precision}};
    return schema;
  }
  /// "state_norm_summary" and "state_norm_curve". The summary is over the cells that are ok, at the
  /// last t; linear_over_label is the mean norm of linear attention's state there (with the same
  /// keys except the mixer's; the first label of several) over this one's, empty without it. The
  /// curve has one row per t, over the same cells.
  static std::vector<Table> summarise(std::span<const CellGroup> groups);
  static Index work(const RunConfig& config);
  static CellResult run(const CellConfig& cell, const CellEnvironment& environment);
};

}  // namespace vla_bench
