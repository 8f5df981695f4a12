// jacobian: sigma_max(J_t) along a sequence by SVD and by the closed form, the cosine between key
// and write direction, and the norm of the product of all Jacobians so far; means over heads (claim
// C2; experiments/jacobian_matrix.h has the mathematics). For a state whose key channels decay
// apart the closed form is a bound.
#pragma once

#include "experiments/declaration.h"

namespace vla_bench {

struct Jacobian : Probe {
  static constexpr std::string_view name = "jacobian";

  static const Schema& table() {
    static const Schema schema{
        name, {label, seed, t, sigma_max, sigma_closed_form, cosine, product_norm, precision}};
    return schema;
  }
  /// "jacobian_summary" and "jacobian_curve", like those of state_norm. In the summary sigma_max
  /// and cosine are over the seeds' means along the sequence, product_norm over its last values.
  /// sigma_max_max is the largest sigma_max, closed_form_gap the largest
  /// |sigma_max - sigma_closed_form| of all recorded tokens, including cells that diverged later.
  static std::vector<Table> summarise(std::span<const CellGroup> groups);
  static Index work(const RunConfig& config);
  static CellResult run(const CellConfig& cell, const CellEnvironment& environment);
};

}  // namespace vla_bench
